"""A name that may be a path or a Hub id, and is to be had as neither: both readings are said."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from lib.failures.explain import Explanation
from lib.failures.known import ABOUT_THE_HUB, GATED, UNREACHABLE

A_MODEL, SOME_ROWS = "a model folder", "a file or folder of rows"


class Readings(NamedTuple):
    """As a problem says them."""

    expected: str
    remedy: str


def two_readings(name: str, kind: str, found: Explanation | None) -> Readings | None:
    """What to say of `name`, the `kind` of thing that was looked for; None where the Hub has nothing to
    do with it: there is something of that name here, or the failure is another. What is gated exists: it is
    no path."""
    path = Path(name).expanduser()
    if found is None or found.failure.name not in ABOUT_THE_HUB or path.exists():
        return None
    failure = found.failure
    why = f"{failure.cause} ({found.said})" if failure.name == UNREACHABLE else failure.cause
    if failure.name == GATED:
        return Readings(f"a repository that this account may read; {why}", failure.remedy)
    return Readings(
        f"{kind}, but there is none at {path.absolute()}; or a Hub id, but {why}",
        "if a path is meant, correct it: a relative one starts at the working directory; "
        f"if a Hub id is meant, {failure.remedy}",
    )
