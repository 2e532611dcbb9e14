"""What is wrong with a data file: as a whole, or in one of its rows.

A row that cannot be read stands in its place as a BrokenRow, so that every other row keeps its number, and so
that it is treated as any other unusable row is: refused by a strict stage, skipped and counted by a lenient
one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lib.data.reading.first_problems import FirstProblems
from lib.settings.errors import InputError, Problem

Row = Mapping[str, Any]
SKIPPED = "; SFT_STRICT=0 skips and counts such rows"
MEND_OR_SKIP = f"mend or remove it{SKIPPED}"


class BrokenRow(dict[str, Any]):
    """Without columns; `problem` names file and line, or row group."""

    def __init__(self, where: str, kind: str, value: str, expected: str) -> None:
        super().__init__()
        self.problem = Problem(where, kind, value, expected, MEND_OR_SKIP)


def some_sound(rows: list[Row], where: str, noun: str) -> list[Row]:
    """`rows`; InputError with the first problems and their number when every one of them is broken."""
    broken = [row for row in rows if isinstance(row, BrokenRow)]
    if not rows or len(broken) < len(rows):
        return rows
    problems = FirstProblems()
    problems.extend(row.problem for row in broken)
    raise InputError(problems.all_shown(where, noun))


def unreadable(where: str, reason: str, remedy: str) -> InputError:
    """The error of a file or folder of which nothing can be used."""
    return InputError.of(
        where=where, key="data set", value=reason, expected="a readable data set", remedy=remedy
    )


def shown_names(names: Sequence[str], limit: int = 5) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
