"""Rows of a Hub data set as they arrive: its files are never stored, only the rows that are asked for."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from lib.data.cache import DataCache
from lib.data.reading.broken_rows import Row
from lib.data.reading.hub import load_error
from lib.data.reading.split_parts import SplitPart
from lib.data.stored.chunks import CHUNK_ROWS, Chunk, RowsChunk
from lib.data.stored.examples import ExampleStore, build_examples, open_examples
from lib.data.stored.folder import StoreFolder, disk_errors
from lib.data.stored.keys import store_key
from lib.settings.errors import InputError


def keep_stream(cache: DataCache, name: str, part: SplitPart) -> tuple[ExampleStore, str]:
    """Rows, normalised into the cache or found there, and the fingerprint of the data set's files.

    Raises InputError for a data set that cannot be read, for a part that is not counted in rows from the
    beginning, and for a cache that cannot be written.
    """
    first, last = _borders(name, part)
    builder = _opened(name, part)
    key = store_key("stream", name, builder.hash, part.name, first, last)
    folder = StoreFolder.of(cache, "rows", key)
    with disk_errors(cache), folder.building():
        if folder.marker() is None:
            rows = None if last is None else last - first
            chunks = _chunks(_rows(name, part, builder, first, last))
            build_examples(cache, folder, rows, chunks, f"streaming {name}")
    found = open_examples(folder, key)
    if found is None:
        raise AssertionError("what was built is whole")
    return found, str(builder.hash)


def _borders(name: str, part: SplitPart) -> tuple[int, int | None]:
    first, last = part.first or 0, part.last
    if part.percent or first < 0 or (last or 0) < 0:
        raise InputError.of(
            where=name,
            key="split",
            value=f"{part.name}[{part.first}:{part.last}]" + (" in percent" if part.percent else ""),
            expected="a part in rows from the beginning: how many there are is not known while they arrive",
            remedy="write NAME[:ROWS] or NAME[FROM:TO], or set SFT_DATASET_STREAMING=0",
        )
    return first, last


def _opened(name: str, part: SplitPart) -> Any:
    import datasets

    try:
        return datasets.load_dataset_builder(name)
    except Exception as error:  # as in lib.data.reading.hub: many types, one meaning
        raise load_error(name, part.name, error) from error


def _rows(name: str, part: SplitPart, builder: Any, first: int, last: int | None) -> Iterator[Row]:
    """Raises InputError where the stream breaks off; what arrived before is kept."""
    try:
        yield from islice(builder.as_streaming_dataset(part.name), first, last)
    except Exception as error:
        raise load_error(name, part.name, error) from error


def _chunks(rows: Iterable[Row]) -> Iterator[Chunk]:
    arriving = iter(rows)
    while content := list(islice(arriving, CHUNK_ROWS)):
        yield RowsChunk(content)
