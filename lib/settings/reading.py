"""From the texts given to the typed settings classes, collecting whatever a reader refuses."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from lib.settings.errors import Problems
from lib.settings.json_values import BrokenJsonError
from lib.settings.keys import Key, keys_by_field
from lib.settings.layers import Given
from lib.settings.readers import RefusedError

T = TypeVar("T")


class Reading:
    """One pass over the settings of a stage. What is refused becomes a problem and a stand-in value."""

    def __init__(
        self, given: Mapping[str, Given], defaults: Mapping[str, str], problems: Problems, *, env_file: Path
    ) -> None:
        self.given = given
        self.defaults = defaults
        self.problems = problems
        self.env_file = env_file
        self.strict = True
        self.notices: list[str] = []

    def group(self, settings: type[T]) -> T:
        return settings(**self.members(settings))

    def members(self, settings: type[Any]) -> dict[str, Any]:
        """The values of the fields that keys set, by field."""
        return {name: self.value(keys) for name, keys in keys_by_field(settings).items()}

    def value(self, keys: tuple[Key, ...]) -> Any:
        """The value of the first key given, else the default."""
        given = [key for key in keys if key.env in self.given]
        self._note_overruled(given)
        broken: tuple[Key, BrokenJsonError] | None = None
        for key in given:
            try:
                return key.reader.parse(self.given[key.env].text)
            except BrokenJsonError as error:
                if self.strict or len(keys) == 1:
                    return self._refuse(key, error)
                broken = broken or (key, error)
                name = key.env.removeprefix("SFT_")
                self.notices.append(f"[WARNING] Failed to parse {name}: {error.reason}")
            except RefusedError as error:
                return self._refuse(key, error)
        if broken is not None:
            return self._refuse(*broken)
        return self._default(keys)

    def _default(self, keys: tuple[Key, ...]) -> Any:
        first = keys[0]
        if first.env in self.defaults:
            return first.reader.parse(self.defaults[first.env])
        names = [key.env for key in keys]
        if not any(self.problems.about(name) for name in names):
            key = keys[-1]  # the plainest of the alternatives
            self.problems.add(
                str(self.env_file),
                key=" or ".join(names),
                expected=f"{'this' if len(keys) == 1 else 'one of these'} to be set; it has no default",
                remedy=f"Add a line such as {key.env}=… to the stage file: {key.reader.allowed}.",
            )
        return None

    def _refuse(self, key: Key, error: RefusedError) -> Any:
        given = self.given[key.env]
        default = self.defaults.get(key.env)
        fallback = f", or delete it for the default {default}" if default else ""
        # Written without a blank before it, a comment is a part of the value.
        comment = " A comment needs a blank before its #." if "#" in given.text else ""
        for fault in error.faults:
            self.problems.add(
                given.origin,
                key=key.env,
                value=given.text if fault.value is None else fault.value,
                expected=fault.expected,
                remedy=(fault.remedy or f"Correct {key.env}{fallback}.") + comment,
            )
        return None if default is None else key.reader.parse(default)

    def _note_overruled(self, given: list[Key]) -> None:
        for loser in given[1:]:
            winner = given[0].env
            if self.given[loser.env].layer > self.given[winner].layer:
                self.notices.append(
                    f"{self.given[loser.env].origin}: {loser.env} is not used, because {winner} is set in "
                    f"{self.given[winner].origin}. To use it, add --set {winner}="
                )
