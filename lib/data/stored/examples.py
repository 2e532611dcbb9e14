"""Normalised rows of a large data set in Arrow files, and examples that read their content when asked."""

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow

from lib.data.cache import DataCache
from lib.data.reading.first_problems import FirstProblems
from lib.data.reading.labels import Label
from lib.data.reading.rows import Example, Message, RowError, to_example
from lib.data.reading.sources import NormalizedRows
from lib.data.reading.split_parts import SplitPart
from lib.data.stored.chunks import Chunk, chunks_of, open_chunked
from lib.data.stored.folder import StoreFolder, disk_errors, read_shard, write_shard
from lib.data.stored.keys import store_key
from lib.data.stored.workers import Task, run_tasks
from lib.settings.errors import Problem

_SCHEMA = pyarrow.schema(
    {
        "roles": pyarrow.list_(pyarrow.string()),
        "contents": pyarrow.list_(pyarrow.large_string()),
        "text": pyarrow.large_string(),
        "labels": pyarrow.string(),
        "key": pyarrow.string(),
        "index": pyarrow.int64(),
        "characters": pyarrow.int64(),
        "names_nobody": pyarrow.bool_(),
    }
)
_PROBLEMS = b"problems"


class ExampleStore(NormalizedRows):
    """The usable rows of one data set, on disk. What is kept in memory is a few numbers and a key a row."""

    def __init__(self, folder: StoreFolder, key: str, rows: int, shards: int) -> None:
        self.folder = folder
        self.key = key
        self._rows = rows
        self._shards = shards

    def __len__(self) -> int:
        """With those that are not usable."""
        return self._rows

    @cached_property
    def batches(self) -> list[pyarrow.RecordBatch]:
        return [read_shard(self.folder.shard(number)) for number in range(self._shards)]

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(batch.num_rows for batch in self.batches))

    @property
    def usable(self) -> int:
        return self._ends[-1] if self._ends else 0

    def content(self, position: int) -> tuple[tuple[Message, ...], str | None]:
        number = bisect_right(self._ends, position)
        batch = self.batches[number]
        return _content(batch, position - self._ends[number] + batch.num_rows)

    def examples(self, name: str) -> tuple[Example, ...]:
        """As rows of a source of this name."""
        return tuple(self._light_examples(name))

    def _light_examples(self, name: str) -> Iterator[Example]:
        labels = _LabelReader()
        position = 0
        for batch in self.batches:
            columns = (batch[column].to_pylist() for column in ("labels", "key", "index", "characters"))
            negatives = batch["names_nobody"].to_pylist()
            for written, key, index, characters, negative in zip(*columns, negatives, strict=True):
                yield StoredExample(self, position, name, labels(written), key, index, characters, negative)
                position += 1

    def problems(self, name: str) -> FirstProblems:
        """Of the rows that fit no format."""
        found = FirstProblems()
        for batch in self.batches:
            noted = json.loads(batch.schema.metadata[_PROBLEMS])
            for place, *texts in noted["first"]:
                # A row of the data set, or the line of a file.
                found.add(Problem(f"{name}{place}" if place.startswith("#") else place, *texts))
            found.total += noted["total"] - len(noted["first"])
        return found


class StoredExample(Example):
    """An example whose messages and text are read from the file each time they are asked for. There may be
    millions, so what is left of them is in slots."""

    __slots__ = ("characters", "position", "row_id", "store")
    store: ExampleStore
    position: int
    row_id: str
    characters: int

    def __init__(
        self,
        store: ExampleStore,
        position: int,
        source: str,
        labels: tuple[Label, ...],
        key: str,
        index: int,
        characters: int,
        names_nobody: bool | None,
    ) -> None:
        """`position` among the usable rows of the store."""
        put = object.__setattr__  # as the constructor of a frozen dataclass does
        put(self, "store", store)
        put(self, "position", position)
        put(self, "source", source)
        put(self, "labels", labels)
        put(self, "key", key)
        put(self, "index", index)
        put(self, "characters", characters)
        put(self, "names_nobody", names_nobody)
        put(self, "row_id", f"{source}#{index}")

    @property
    def messages(self) -> tuple[Message, ...]:
        return self.store.content(self.position)[0]

    @property
    def text(self) -> str | None:
        return self.store.content(self.position)[1]

    def renamed(self, source: str) -> Example:
        return StoredExample(
            self.store, self.position, source, self.labels, self.key, self.index,
            self.characters, self.names_nobody,
        )  # fmt: skip


def keep_files(
    cache: DataCache, files: Sequence[Path], part: SplitPart, fingerprint: str
) -> ExampleStore | None:
    """The rows of these files, normalised into the cache, or found there.

    None for files with something in them that cannot be read at all: reading them whole says what and where.
    Raises InputError for a cache that cannot be written.
    """
    kinds = [path.suffix.lower() for path in files]
    key = store_key("rows", fingerprint, kinds, [part.first, part.last, part.percent])
    folder = StoreFolder.of(cache, "rows", key)
    with suppress(OSError, ValueError, RecursionError, pyarrow.ArrowException), disk_errors(cache):
        if folder.marker() is None:
            with folder.building():
                if folder.marker() is None:
                    rows, chunks = chunks_of([open_chunked(path) for path in files], part)
                    build_examples(cache, folder, rows, chunks, f"reading {_name(files)}")
        return open_examples(folder, key)
    return None


def open_examples(folder: StoreFolder, key: str) -> ExampleStore | None:
    """None for a folder that is not whole."""
    marker = folder.marker()
    return ExampleStore(folder, key, marker["rows"], marker["shards"]) if marker else None


def write_examples(chunk: Chunk, first: int, path: Path) -> None:
    """One shard: the rows of a chunk, the first of which has this index in its data set."""
    examples: list[Example] = []
    unfit = FirstProblems()
    for index, row in enumerate(chunk.read(), start=first):
        try:
            examples.append(to_example(row, "", index))
        except RowError as error:
            unfit.extend(error.problems)
    write_shard(path, _batch(examples, unfit))


def contents_of(batch: pyarrow.RecordBatch, rows: Sequence[int]) -> list[Example]:
    """These rows of a shard with their content in memory, for a task: without source and labels."""
    taken = batch if len(rows) == batch.num_rows else batch.take(pyarrow.array(rows, pyarrow.int64()))
    columns = (taken[name].to_pylist() for name in ("roles", "contents", "text"))
    return [
        Example(tuple(map(Message, roles, contents)), text, (), "", "", row)
        for row, roles, contents, text in zip(rows, *columns, strict=True)
    ]


def build_examples(
    cache: DataCache, folder: StoreFolder, rows: int | None, chunks: Iterable[Chunk], doing: str
) -> None:
    """Every chunk as a shard, but for those that are there. `rows` is for the progress bar."""
    counted: list[int] = []

    def tasks() -> Iterator[Task]:
        for chunk in chunks:
            path, first = folder.shard(len(counted)), sum(counted)
            counted.append(chunk.rows)
            if not path.exists():
                yield Task(write_examples, (chunk, first, path), chunk.rows)

    run_tasks(tasks(), processes=cache.processes, rows=rows, doing=doing)
    folder.finish({"rows": sum(counted), "shards": len(counted)})


def _batch(examples: Sequence[Example], unfit: FirstProblems) -> pyarrow.RecordBatch:
    columns: dict[str, list[Any]] = {
        "roles": [[message.role for message in example.messages] for example in examples],
        "contents": [[message.content for message in example.messages] for example in examples],
        "text": [example.text for example in examples],
        "labels": [json.dumps(example.labels, ensure_ascii=False) for example in examples],
        "key": [example.key for example in examples],
        "index": [example.index for example in examples],
        "characters": [example.characters for example in examples],
        "names_nobody": [example.names_nobody for example in examples],
    }
    first = [
        [problem.where, problem.key, problem.value, problem.expected, problem.remedy]
        for problem in unfit.first
    ]
    noted = {_PROBLEMS: json.dumps({"total": unfit.total, "first": first})}
    return pyarrow.RecordBatch.from_pydict(columns, schema=_SCHEMA.with_metadata(noted))


def _content(batch: pyarrow.RecordBatch, row: int) -> tuple[tuple[Message, ...], str | None]:
    roles, contents = batch["roles"][row].as_py(), batch["contents"][row].as_py()
    messages = tuple(Message(role, content) for role, content in zip(roles, contents, strict=True))
    return messages, batch["text"][row].as_py()


class _LabelReader:
    """Labels as they were written; rows with the same ones share them."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Label, ...]] = {}

    def __call__(self, written: str) -> tuple[Label, ...]:
        if written not in self._known:
            self._known[written] = tuple(Label(field, value) for field, value in json.loads(written))
        return self._known[written]


def _name(files: Sequence[Path]) -> str:
    return files[0].name if len(files) == 1 else f"{files[0].parent.name} ({len(files)} files)"
