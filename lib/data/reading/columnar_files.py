"""Rows of .parquet and .arrow files (as `datasets` writes those), within bounds.

A compressed file of kilobytes can declare, or truly hold, rows for all memory there is. So no file may have
more rows than bytes or unfold to more than a hundred times its size; small files have a floor. Texts that
people wrote compress four to ten times. A row group or batch that is damaged is as many BrokenRows as it
declares rows.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lib.data.reading.broken_rows import BrokenRow, Row, some_sound, unreadable

if TYPE_CHECKING:
    import pyarrow

BATCH_ROWS = 1024
MOST_UNFOLDED = 100
SMALLEST_LIMIT_ROWS = 1_000_000
SMALLEST_LIMIT_BYTES = 2**30
# What arrow raises for damage: its own errors, OSError for thrift and codecs, and what Python objects cannot
# express, such as texts that are not UTF-8, dates after the year 9999 and unknown time zones.
DAMAGE = (OSError, ValueError, OverflowError, LookupError, MemoryError, NotImplementedError, TypeError)


class TooMuchError(Exception):
    """The file breaks a bound; the text says which."""


class Limits:
    """What one file may still unfold to."""

    def __init__(self, path: Path) -> None:
        size = path.stat().st_size
        self.rows = self.most_rows = max(size, SMALLEST_LIMIT_ROWS)
        self.bytes = self.most_bytes = max(size * MOST_UNFOLDED, SMALLEST_LIMIT_BYTES)

    def take_rows(self, count: int) -> None:
        self.rows -= count
        if count < 0 or self.rows < 0:
            raise TooMuchError(f"it declares more than {self.most_rows:,} rows for its size")

    def take_bytes(self, count: int) -> None:
        self.bytes -= count
        if self.bytes < 0:
            raise TooMuchError(f"its rows unfold to more than {self.most_bytes / 1e9:.1f} GB")


def read_parquet(path: Path) -> list[Row]:
    """Raises InputError when no row group can be read, and for a file that breaks a bound."""
    import pyarrow.parquet

    limits = Limits(path)
    rows: list[Row] = []
    try:
        # Not read_table: it imports pandas, which takes longer than reading.
        with pyarrow.parquet.ParquetFile(path) as file:
            limits.take_rows(file.metadata.num_rows)
            for group in range(file.num_row_groups):
                declared = file.metadata.row_group(group).num_rows
                where = f"{path}: row group {group} (rows {len(rows)} to {len(rows) + declared - 1})"
                batches = file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group])
                rows += _group(batches, declared, where, limits)
    except TooMuchError as error:
        raise unreadable(str(path), str(error), "write it again, in several files") from error
    except DAMAGE as error:
        raise _damaged(path, "parquet", error) from error
    return some_sound(rows, str(path), "broken row groups")


def _group(
    batches: Iterable["pyarrow.RecordBatch"], declared: int, where: str, limits: Limits
) -> Iterator[Row]:
    """The rows of a row group, all or none: rows behind damage would have moved."""
    if not 0 <= declared <= limits.most_rows:
        raise TooMuchError(f"it declares {declared:,} rows in a row group")
    rows: list[Row] = []
    reason = ""
    try:
        for batch in batches:
            rows += _plain(batch, limits)
        if len(rows) != declared:
            reason = f"it holds {len(rows)} rows, not the {declared} that it declares"
    except DAMAGE as error:
        reason = " ".join(str(error).split())
    if reason:
        broken = BrokenRow(where, "row group", "", f"a readable row group ({reason})")
        return iter([broken] * declared)
    return iter(rows)


def read_arrow(path: Path) -> list[Row]:
    """Raises InputError for a damaged file: what follows damage in a stream cannot be found."""
    import pyarrow

    limits = Limits(path)
    rows: list[Row] = []
    try:
        with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as stream:
            for batch in stream:
                limits.take_rows(batch.num_rows)
                rows += _plain(batch, limits)
    except TooMuchError as error:
        raise unreadable(str(path), str(error), "write it again, in several files") from error
    except DAMAGE as error:
        raise _damaged(path, "arrow", error) from error
    return rows


def _plain(batch: "pyarrow.RecordBatch", limits: Limits) -> Iterator[Row]:
    """As Python objects, a few rows at a time: a value that many rows share is a copy for each of them."""
    # Offsets of a damaged file may point anywhere in memory.
    batch.validate(full=True)
    limits.take_bytes(batch.nbytes)
    return iter(batch.to_pylist())


def _damaged(path: Path, kind: str, error: BaseException) -> Exception:
    reason = f"not a readable {kind} file: {' '.join(str(error).split())}"
    return unreadable(str(path), reason, "fetch or write it again")
