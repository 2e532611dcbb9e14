"""Which text each key has and who gave it: `--set` over the process environment over the env file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lib.settings.env_file import collect_pairs
from lib.settings.errors import Problems
from lib.settings.suggestions import PREFIX, did_you_mean_key

REFERENCE = "docs/settings.md lists all keys."
SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "API_KEY", "CREDENTIAL")


class Given(NamedTuple):
    """A text that is not empty, where it came from, and how strongly it counts (1 file … 3 --set)."""

    text: str
    origin: str
    layer: int


class Layers:
    """Lays one source over another; a later, empty text takes the key back to its default."""

    def __init__(self, spellings: Mapping[str, str], problems: Problems) -> None:
        self._spellings = spellings
        self._known = set(spellings.values())
        self._problems = problems
        self._given: dict[str, Given] = {}
        self.notices: list[str] = []

    def result(self) -> dict[str, Given]:
        """The keys that have a text of their own; all others stand at their default."""
        return {key: given for key, given in self._given.items() if given.text}

    def add_file(self, path: Path) -> None:
        for key, (text, line) in collect_pairs(path, self._problems).items():
            where = f"{path}:{line}"
            if key in self._known:
                self._given[key] = Given(text.strip(), where, layer=1)
            elif key.upper().startswith(PREFIX):
                self._refuse(key, text, where)
            else:
                # The value may be a secret (HF_TOKEN=…): it is not shown.
                hint = did_you_mean_key(key, self._spellings)
                notice = f"{where}: {key} is not a setting of this trainer: ignored. {hint}"
                self.notices.append(notice.rstrip())

    def add_environment(self, environ: Mapping[str, str]) -> None:
        for key, text in environ.items():
            if key in self._known:
                self._given[key] = Given(text.strip(), "environment", layer=2)
            elif key.startswith(PREFIX):
                self._refuse(key, text, "environment")

    def add_overrides(self, overrides: Sequence[str]) -> None:
        """Texts of the form KEY=VALUE; of two for one key the last one counts, as usual for options."""
        for override in overrides:
            key, equals, text = override.partition("=")
            key = key.strip()
            if not equals:
                expected, remedy = "KEY=VALUE", f"Write --set {key or 'KEY'}=VALUE."
                self._problems.add("--set", key=key, value=override, expected=expected, remedy=remedy)
            elif key in self._known:
                self._given[key] = Given(text.strip(), "--set", layer=3)
            else:
                self._refuse(key, text, "--set")

    def _refuse(self, key: str, text: str, where: str) -> None:
        secret = any(word in key.upper() for word in SECRET_WORDS)
        self._problems.add(
            where,
            key=key,
            value="(not shown)" if secret and text else text,
            expected="a key that this trainer knows",
            remedy=did_you_mean_key(key, self._spellings) or f"Delete it; {REFERENCE}",
        )
