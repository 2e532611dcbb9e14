"""The nearest known name for a misspelt one."""

import difflib
from collections.abc import Iterable, Mapping

PREFIX = "SFT_"


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """`Did you mean X?`, or nothing when no name is near."""
    return _question(_nearest(given, {name: name for name in known}, closeness=0.6))


def did_you_mean_key(given: str, spellings: Mapping[str, str]) -> str:
    """The same for keys of an env file; `spellings` leads from every recognised spelling to the key."""
    name = given.upper()
    if f"{PREFIX}{name}" in spellings:
        return _question(spellings[f"{PREFIX}{name}"])
    if not name.startswith(PREFIX):
        # Probably a key of another program: only a slip of the pen is worth a question.
        return _question(_nearest(name, spellings, closeness=0.8))
    # Without the prefix that all share: it would make everything look alike.
    bare = {known.removeprefix(PREFIX): key for known, key in spellings.items()}
    return _question(_nearest(name.removeprefix(PREFIX), bare, closeness=0.6))


def _nearest(given: str, spellings: Mapping[str, str], *, closeness: float) -> str | None:
    found = difflib.get_close_matches(given, list(spellings), n=1, cutoff=closeness)
    return spellings[found[0]] if found else None


def _question(name: str | None) -> str:
    return f"Did you mean {name}?" if name else ""
