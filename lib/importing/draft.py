"""A stage file in the making: settings with where each came from, and what could not be carried over."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from lib.importing.foreign import Section
from lib.settings.errors import Problem, shortened

# Which keys (patterns), and what is to be said about them.
Sayings = tuple[tuple[str, str], ...]
# Parts of a name: `hf_hub_token` holds a secret, `special_tokens` does not.
_SECRET_WORDS = {"token", "secret", "password", "key", "credential", "credentials"}
_NOT_KNOWN = "not known to this import: look it up in that trainer's documentation and in docs/settings.md"


@dataclass(frozen=True)
class Carried:
    """One setting. `differs` says how its meaning is another than that of its source; empty: the same."""

    text: str
    source: str
    differs: str = ""


@dataclass(frozen=True)
class NotCarried:
    """A key without a counterpart, its value as it may be shown, and what to do instead."""

    key: str
    value: str
    advice: str


class StageDraft:
    """Collects what the rules of an import find."""

    def __init__(self) -> None:
        self.settings: dict[str, Carried] = {}
        self.not_carried: list[NotCarried] = []
        self.not_needed: dict[str, str] = {}
        """Key → why nothing has to be done about it."""
        self.problems: list[Problem] = []

    def set(self, key: str, value: Any, source: str, differs: str = "") -> None:
        """The first rule that sets a key wins."""
        self.settings.setdefault(key, Carried(as_text(value), source, differs))

    def carry(
        self, key: str, section: Section, theirs: str, *, default: Any = None, differs: str = ""
    ) -> None:
        """The value as it stands, or the default of that trainer where ours is another one."""
        value = section.take(theirs)
        if value is not None:
            self.set(key, value, shown(section.name(theirs), value), differs)
        elif default is not None:
            self.set(key, default, f"{section.name(theirs)} is not given: its default", differs)

    def advise(self, section: Section, key: str, value: Any, advice: str) -> None:
        name = section.name(key)
        self.not_carried.append(NotCarried(name, shown(name, value).partition(": ")[2], advice))

    def refuse(self, section: Section, key: str, value: Any, expected: str) -> None:
        """What no stage file can say: a problem, so that nothing is written."""
        name = section.name(key)
        remedy = "Correct it there, or write the stage file by hand (docs/migrating.md)."
        self.problems.append(Problem("", name, shown(name, value).partition(": ")[2], expected, remedy))

    def sort_out(self, section: Section, not_needed: Sayings, advice: Sayings) -> None:
        """Everything that no rule took from the section."""
        for key, value in section.left().items():
            if value is None or value is False or value in ("", [], {}):
                self.not_needed[section.name(key)] = "off or empty there"
            elif reason := _saying(key, not_needed):
                self.not_needed[section.name(key)] = reason
            else:
                self.advise(section, key, value, _saying(key, advice) or _NOT_KNOWN)

    def account_for(self, section: Section) -> None:
        """Keys that rules took and no line speaks of: nothing is dropped without a word."""
        sources = (carried.source for carried in self.settings.values())
        said = "\n".join([*sources, *(entry.key for entry in self.not_carried)])
        for key in section.all_keys():
            if key not in self.not_needed and not re.search(rf"(?<!\w){re.escape(key)}(?!\w)", said):
                self.not_needed[key] = "as here, or decided by another key of the file"

    def differing(self) -> Iterator[tuple[str, Carried]]:
        return ((key, carried) for key, carried in self.settings.items() if carried.differs)


def as_list(value: Any) -> list[Any]:
    """A list as it is, nothing as the empty one, and a single value as a list of it."""
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def as_text(value: Any) -> str:
    """As a stage file has it: 1 and 0 for true and false, a list with commas."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, list | tuple):
        return ",".join(map(as_text, value))
    return str(value).strip()


def shown(key: str, value: Any) -> str:
    """`key: value` for comments and the terminal: short, on one line, without secrets."""
    if _SECRET_WORDS & set(key.lower().replace(".", "_").split("_")):
        return f"{key}: (not shown)"
    if isinstance(value, dict | list):
        return f"{key}: {shortened(json.dumps(value, ensure_ascii=False, default=str))}"
    return f"{key}: {shortened(str(value).lower() if isinstance(value, bool) else str(value))}"


def number(value: Any) -> float | None:
    """A finite number, also one that YAML leaves as text (`2e-4`); None for everything else."""
    if isinstance(value, bool):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def plain(value: float) -> str:
    """Without an exponent or a needless `.0`."""
    return f"{value:.10f}".rstrip("0").rstrip(".")


def _saying(key: str, sayings: Sayings) -> str:
    return next((text for patterns, text in sayings if _matches(key, patterns)), "")


def _matches(key: str, patterns: str) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns.split())
