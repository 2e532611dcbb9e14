"""From the text of a value to a typed value. A reader also says what it allows."""

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Generic, Literal, NamedTuple, TypeVar

from lib.settings.metrics import METRICS
from lib.settings.suggestions import did_you_mean

T = TypeVar("T")
Name = TypeVar("Name", bound=str)

TRUE_WORDS = ("1", "true", "yes", "on")
FALSE_WORDS = ("0", "false", "no", "off")
LARGEST_SEED = 2**32 - 1  # what numpy takes
MOST_DIGITS = 12
# File systems take 255 bytes and 4,096; other names are built from these.
LONGEST_NAME = 200
LONGEST_PATH = 1000


class Fault(NamedTuple):
    """Why a text is refused. Without `value` the whole text is at fault; `remedy` may be empty."""

    expected: str
    remedy: str = ""
    value: str | None = None


class RefusedError(ValueError):
    """Raised by readers, with everything that is wrong with the one value."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("; ".join(fault.expected for fault in faults))
        self.faults = faults


class Reader(NamedTuple, Generic[T]):
    """`parse` takes the stripped text and raises RefusedError; `allowed` completes "expected: …"."""

    allowed: str
    parse: Callable[[str], T]


def integer(*, minimum: int, maximum: int | None = None, off: int | None = None) -> Reader[int]:
    """A whole number in a range; `off` is one more value allowed outside of it."""
    allowed = f"a whole number, at least {minimum}"
    allowed += "" if maximum is None else f" and at most {maximum}"
    allowed = allowed if off is None else f"{off} or {allowed}"

    def parse(text: str) -> int:
        # Python's int() also takes 1_000 and digits of other scripts.
        if not re.fullmatch(r"[+-]?[0-9]+", text):
            raise RefusedError(Fault(allowed))
        if len(text.lstrip("+-0")) > MOST_DIGITS:  # what is computed from it would not fit a float
            raise RefusedError(Fault(f"{allowed}, of at most {MOST_DIGITS} digits"))
        value = int(text)
        if value != off and (value < minimum or (maximum is not None and value > maximum)):
            raise RefusedError(Fault(allowed))
        return value

    return Reader(allowed, parse)


def number(
    *,
    minimum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    maximum: float | None = None,
) -> Reader[float]:
    """A finite number within the bounds given (`above` and `below` exclude their bound)."""
    bounds = (("at least", minimum), ("above", above), ("below", below), ("at most", maximum))
    limits = " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
    allowed = f"a number, {limits}" if limits else "a number"

    def parse(text: str) -> float:
        plain = re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text)
        value = float(text) if plain else math.nan
        inside = (
            math.isfinite(value)
            and (minimum is None or value >= minimum)
            and (above is None or value > above)
            and (below is None or value < below)
            and (maximum is None or value <= maximum)
        )
        if not inside:
            raise RefusedError(Fault(allowed))
        return value

    return Reader(allowed, parse)


def flag() -> Reader[bool]:
    """0/1, false/true, no/yes, off/on, in any case."""
    allowed = "0 or 1 (also false/true, no/yes, off/on)"

    def parse(text: str) -> bool:
        word = text.lower()
        if word not in TRUE_WORDS + FALSE_WORDS:
            raise RefusedError(Fault(allowed))
        return word in TRUE_WORDS

    return Reader(allowed, parse)


def choice(*names: Name) -> Reader[Name]:
    """One of the names, exactly; for the names 0 and 1 the other words of a flag are taken as well."""
    allowed = f"{', '.join(names[:-1])} or {names[-1]}"
    words: dict[str, Name] = {name: name for name in names}
    if "0" in words and "1" in words:
        words |= dict.fromkeys(TRUE_WORDS, words["1"]) | dict.fromkeys(FALSE_WORDS, words["0"])

    def parse(text: str) -> Name:
        if text not in words:
            raise RefusedError(Fault(allowed))
        return words[text]

    return Reader(allowed, parse)


def or_auto(reader: Reader[T]) -> Reader[T | Literal["auto"]]:
    """The word auto, or what the reader takes."""

    def parse(given: str) -> T | Literal["auto"]:
        if given == "auto":
            return "auto"
        try:
            return reader.parse(given)
        except RefusedError as error:
            raise RefusedError(
                *(fault._replace(expected=f"auto or {fault.expected}") for fault in error.faults)
            ) from None

    return Reader(f"auto or {reader.allowed}", parse)


def text(allowed: str) -> Reader[str]:
    """Any text that can be written down: no NUL byte, nothing that is not Unicode."""

    def parse(given: str) -> str:
        if not writable(given):
            raise RefusedError(Fault(f"{allowed}, without NUL bytes and in valid UTF-8"))
        return given

    return Reader(allowed, parse)


def regular_expression(allowed: str) -> Reader[str]:
    """The source of a pattern in Python's syntax; the empty text is no pattern."""

    def parse(given: str) -> str:
        try:
            re.compile(text(allowed).parse(given))
        except re.error as error:
            raise RefusedError(Fault(f"{allowed} ({error})")) from None
        return given

    return Reader(allowed, parse)


def metric_name(allowed: str) -> Reader[str]:
    """A metric whose better direction is known; a label may follow after a slash (`gen_parse_rate/toml`)."""

    def parse(given: str) -> str:
        name = given.split("/")[0]
        if name not in METRICS:
            raise RefusedError(Fault(allowed, remedy=did_you_mean(name, METRICS)))
        return given

    return Reader(allowed, parse)


def local_or_named(allowed: str) -> Reader[str]:
    """A name on the Hub, or a path in which a leading ~ is expanded."""
    return Reader(allowed, lambda given: expand_home(text(allowed).parse(given), allowed))


def path(allowed: str) -> Reader[Path]:
    """A path whose last part is a name (other names are built from it); a leading ~ is expanded."""

    def parse(given: str) -> Path:
        found = Path(local_or_named(allowed).parse(given))
        if found.name in ("", ".."):
            raise RefusedError(Fault(f"{allowed}; its last part must be a name"))
        return found

    return Reader(allowed, parse)


def words(allowed: str) -> Reader[tuple[str, ...]]:
    """A comma-separated list of at least one entry, each entry once, blanks around entries dropped."""

    def parse(given: str) -> tuple[str, ...]:
        entries = tuple(entry.strip() for entry in text(allowed).parse(given).split(","))
        if "" in entries or len(set(entries)) < len(entries):
            raise RefusedError(Fault(f"{allowed}; no entry empty, none twice"))
        return entries

    return Reader(allowed, parse)


def words_among(names: Sequence[str]) -> Reader[tuple[str, ...]]:
    """A comma-separated list of some of the names, in the order of the names."""
    allowed = f"a comma-separated list of {', '.join(names)}"

    def parse(given: str) -> tuple[str, ...]:
        entries = words(allowed).parse(given)
        unknown = next((entry for entry in entries if entry not in names), None)
        if unknown is not None:
            raise RefusedError(Fault(allowed, remedy=did_you_mean(unknown, names)))
        return tuple(name for name in names if name in entries)

    return Reader(allowed, parse)


def ranks(allowed: str) -> Reader[Mapping[str, int]]:
    """`a|b,c`: a and b have rank 0, c has rank 1. Every word once."""

    def parse(given: str) -> Mapping[str, int]:
        levels = [level.split("|") for level in text(allowed).parse(given).split(",")]
        found = {word.strip(): rank for rank, level in enumerate(levels) for word in level}
        if "" in found or len(found) < sum(map(len, levels)):
            raise RefusedError(Fault(f"{allowed}; no word empty, none twice"))
        return found

    return Reader(allowed, parse)


def optional(reader: Reader[T]) -> Reader[T | None]:
    """The empty text is None."""
    return Reader(f"{reader.allowed}, or empty", lambda given: reader.parse(given) if given else None)


def writable(given: str) -> bool:
    try:
        given.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return "\0" not in given


def expand_home(given: str, allowed: str) -> str:
    """`~/x` in the home folder; any other text as it is. Raises RefusedError for an unknown user's ~name, and
    for a path that no file system takes."""
    expanded = os.path.expanduser(given)
    if expanded.startswith("~"):
        raise RefusedError(
            Fault(allowed, remedy="Write the folder out: the home folder behind this ~ is unknown.")
        )
    if any(len(name.encode()) > LONGEST_NAME for name in expanded.split("/")) or len(expanded) > LONGEST_PATH:
        raise RefusedError(Fault(allowed, remedy=f"Shorten it: a name has at most {LONGEST_NAME} bytes."))
    return expanded
