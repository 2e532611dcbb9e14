"""A part of a split, as `datasets` writes it: `train[:96000]`, `train[10:20]`, `train[:5%]`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from lib.data.reading.broken_rows import Row

Rows = TypeVar("Rows", Sequence[Row], range)
PART_FORM = "NAME, NAME[FROM:TO] in rows or NAME[FROM%:TO%]"
_PART = re.compile(r"(?P<name>[^\[\]+]+)(\[(?P<first>-?\d+%?)?:(?P<last>-?\d+%?)?\])?")


@dataclass(frozen=True)
class SplitPart:
    """`first` is included, `last` is not; None: from the beginning, to the end. Below 0 they count from the
    end. In percent of the rows when `percent` is true, else in rows."""

    name: str
    first: int | None = None
    last: int | None = None
    percent: bool = False

    def of(self, rows: Rows) -> Rows:
        """The rows of this part, in their order; a border beyond the end is the end, as with `datasets`."""
        size = len(rows)
        first = 0 if self.first is None else self._row(self.first, size)
        last = size if self.last is None else self._row(self.last, size)
        return rows[first:last]

    def _row(self, border: int, size: int) -> int:
        row = round(border * size / 100) if self.percent else border
        return min(max(size + row, 0) if row < 0 else row, size)


def parse_split(text: str) -> SplitPart | None:
    """None when `text` is no split of the form PART_FORM. One border in percent makes both percents."""
    match = _PART.fullmatch(text)
    if match is None:
        return None
    borders = (match["first"], match["last"])
    first, last = (None if border is None else int(border.rstrip("%")) for border in borders)
    return SplitPart(match["name"], first, last, any(border and border.endswith("%") for border in borders))
