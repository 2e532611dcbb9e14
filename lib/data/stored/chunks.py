"""The rows of data files in pieces that fit into memory, each of which another process can read."""

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow
import pyarrow.parquet

from lib.data.reading.broken_rows import Row
from lib.data.reading.columnar_files import Limits, TooMuchError
from lib.data.reading.data_files import read_file
from lib.data.reading.split_parts import SplitPart

CHUNK_ROWS = 2_048
_BOM = b"\xef\xbb\xbf"


class Chunk(Protocol):
    """Some rows, in order."""

    @property
    def rows(self) -> int: ...

    def read(self) -> list[Row]: ...


class ChunkedFile(Protocol):
    """A file whose rows are counted without being kept."""

    @property
    def rows(self) -> int: ...

    def chunks(self, first: int, last: int) -> Iterator[Chunk]:
        """The rows from `first` to before `last`, CHUNK_ROWS at a time."""


@dataclass(frozen=True)
class LinesChunk:
    """Lines of a .jsonl file."""

    path: Path
    start: int
    stop: int
    """Bytes."""
    rows: int

    def read(self) -> list[Row]:
        """Raises ValueError for a line that is no JSON object."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            content = file.read(self.stop - self.start)
        rows = [json.loads(line.decode()) for line in content.split(b"\n") if line.strip()]
        if len(rows) != self.rows or not all(isinstance(row, dict) for row in rows):
            raise ValueError(f"{self.path}: something else than {self.rows} objects")
        return rows


class LinesFile:
    """A .jsonl file; what is kept of it is where each of its rows begins."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._starts = array("q")
        position = 0
        with path.open("rb") as file:
            for line in file:
                start = position + (len(_BOM) if position == 0 and line.startswith(_BOM) else 0)
                if line[start - position :].strip():
                    self._starts.append(start)
                position += len(line)
        self._starts.append(position)

    @property
    def rows(self) -> int:
        return len(self._starts) - 1

    def chunks(self, first: int, last: int) -> Iterator[Chunk]:
        for begin in range(first, last, CHUNK_ROWS):
            end = min(begin + CHUNK_ROWS, last)
            yield LinesChunk(self.path, self._starts[begin], self._starts[end], end - begin)


@dataclass(frozen=True)
class RowsChunk:
    content: list[Row]

    @property
    def rows(self) -> int:
        return len(self.content)

    def read(self) -> list[Row]:
        return self.content


class WholeFile:
    """A file of a format that can only be read whole."""

    def __init__(self, path: Path) -> None:
        self._content = read_file(path)

    @property
    def rows(self) -> int:
        return len(self._content)

    def chunks(self, first: int, last: int) -> Iterator[Chunk]:
        for begin in range(first, last, CHUNK_ROWS):
            yield RowsChunk(self._content[begin : min(begin + CHUNK_ROWS, last)])


@dataclass(frozen=True)
class TableChunk:
    table: pyarrow.Table

    @property
    def rows(self) -> int:
        return int(self.table.num_rows)

    def read(self) -> list[Row]:
        content: list[Row] = self.table.to_pylist()
        return content


class BatchedFile:
    """A file that pyarrow reads batch by batch."""

    def __init__(self, path: Path, rows: int, batches: Callable[[], Iterable[pyarrow.RecordBatch]]) -> None:
        self.rows = rows
        self._path = path
        self._read = batches

    def _batches(self) -> Iterator[pyarrow.RecordBatch]:
        """Raises ValueError for a file that breaks a bound of lib.data.reading.columnar_files."""
        limits = Limits(self._path)
        try:
            limits.take_rows(self.rows)
            for batch in self._read():
                batch.validate(full=True)
                limits.take_bytes(batch.nbytes)
                yield batch
        except TooMuchError as error:
            raise ValueError(str(error)) from error

    def chunks(self, first: int, last: int) -> Iterator[Chunk]:
        """Cut at the same rows, whatever the batches: CHUNK_ROWS from `first` on."""
        held: list[pyarrow.RecordBatch] = []
        size, position = 0, 0
        for batch in self._batches():
            begin, end = max(first - position, 0), min(last - position, batch.num_rows)
            position += batch.num_rows
            while begin < end:
                taken = min(end - begin, CHUNK_ROWS - size)
                held.append(batch.slice(begin, taken))
                begin, size = begin + taken, size + taken
                if size == CHUNK_ROWS:
                    yield _copied(held)
                    held, size = [], 0
        if held:
            yield _copied(held)


def open_chunked(path: Path) -> ChunkedFile:
    """Raises InputError, as `read_file` does, for what can only be read whole; else OSError, UnicodeError,
    pyarrow.ArrowException."""
    kind = path.suffix.lower()
    if kind == ".jsonl":
        return LinesFile(path)
    if kind == ".parquet":
        file = pyarrow.parquet.ParquetFile(path)
        return BatchedFile(path, file.metadata.num_rows, lambda: file.iter_batches(CHUNK_ROWS))
    if kind == ".arrow":
        table = pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))).read_all()
        return BatchedFile(path, table.num_rows, table.to_batches)
    return WholeFile(path)


def chunks_of(files: Sequence[ChunkedFile], part: SplitPart) -> tuple[int, Iterator[Chunk]]:
    """How many rows the part of all these files has, and their chunks."""
    chosen = part.of(range(sum(file.rows for file in files)))
    return len(chosen), _chunks(files, chosen)


def _chunks(files: Sequence[ChunkedFile], chosen: range) -> Iterator[Chunk]:
    position = 0
    for file in files:
        first, last = max(chosen.start - position, 0), min(chosen.stop - position, file.rows)
        if first < last:
            yield from file.chunks(first, last)
        position += file.rows


def _copied(batches: list[Any]) -> TableChunk:
    """Without what else stands in the buffers of the batches, which would be sent along to the process."""
    table = pyarrow.Table.from_batches(batches)
    return TableChunk(table.take(pyarrow.array(range(table.num_rows))))
