"""Examples of stores into encoded rows, by way of files that a second start finds."""

import hashlib
import os
from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import pyarrow

from lib.data.cache import DataCache
from lib.data.chat.chat_format import ChatFormat
from lib.data.chat.encoded import EncodedRow
from lib.data.chat.masks import EncodingRules
from lib.data.stored.encoded_shards import EncodedShard, StoredRow, encoded_batch
from lib.data.stored.examples import ExampleStore, StoredExample, contents_of
from lib.data.stored.folder import StoreFolder, disk_errors, prune, read_shard, write_shard
from lib.data.stored.keys import store_key
from lib.data.stored.token_shards import TokenizedRows, token_rows
from lib.data.stored.workers import Parcel, Task, run_tasks

_MANY = 12_000
"""Rows from which on the quicker encoder, which takes a second to make, pays."""
WHOLE_STORE = 0.5
"""From this part of a data set on all of it is encoded, so that another seed draws from what is there."""


@dataclass(frozen=True)
class Selection:
    """Which rows of each shard of a store are encoded; None: all."""

    rows: Sequence[Sequence[int]] | None
    count: int

    @classmethod
    def of(cls, store: ExampleStore, positions: Collection[int]) -> "Selection":
        if len(positions) >= WHOLE_STORE * store.usable:
            return cls(None, store.usable)
        rows, first = [], 0
        for batch in store.batches:
            rows.append([i for i in range(batch.num_rows) if first + i in positions])
            first += batch.num_rows
        return cls(rows, len(positions))

    def of_shard(self, number: int, batch: pyarrow.RecordBatch) -> Sequence[int]:
        return range(batch.num_rows) if self.rows is None else self.rows[number]

    def digest(self) -> str:
        if self.rows is None:
            return "all"
        digest = hashlib.sha256()
        for rows in self.rows:
            digest.update(array("q", [len(rows), *rows]).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class EncodedStore:
    """Where the rows of a selection are, or will be, as tokens and encoded."""

    store: ExampleStore
    selection: Selection
    tokens: StoreFolder
    encoded: StoreFolder

    @classmethod
    def of(
        cls,
        cache: DataCache,
        store: ExampleStore,
        selection: Selection,
        chat: ChatFormat,
        rules: EncodingRules,
    ) -> "EncodedStore":
        # A template that writes the date writes another text tomorrow.
        day = str(date.today()) if "strftime_now" in (chat.template or "") else ""
        tokens = store_key("tokens", store.key, selection.digest(), chat.identity, version("tiktoken"), day)
        markers = (rules.output_markers, rules.output_learn_mode) if rules.mask_cot else ()
        encoded = store_key("encoded", tokens, rules.max_seq_len, rules.mask_cot, *markers)
        return cls(
            store,
            selection,
            StoreFolder.of(cache, "tokens", tokens),
            StoreFolder.of(cache, "encoded", encoded),
        )

    @property
    def whole(self) -> bool:
        return self.encoded.marker() is not None

    def rows(self, examples: Mapping[int, StoredExample]) -> tuple[dict[str, EncodedRow], dict[str, str]]:
        """Of these, by position: by row id; and why the template refuses those that it refuses."""
        found: dict[str, EncodedRow] = {}
        refused: dict[str, str] = {}
        first = 0
        for number, source in enumerate(self.store.batches):
            shard = EncodedShard.open(self.encoded.shard(number))
            reasons = shard.batch["refused"]
            rows = zip(self.selection.of_shard(number, source), shard.numbers(), strict=True)
            for own, (row, (status, counts)) in enumerate(rows):
                example = examples.get(first + row)
                if example is None:
                    continue
                found[example.row_id] = StoredRow(example, shard, own, status, counts)
                if status == "unrenderable":
                    refused[example.row_id] = reasons[own].as_py()
            first += source.num_rows
        return found, refused


def encode_stored(
    cache: DataCache,
    chat: ChatFormat,
    rules: EncodingRules,
    examples: Iterable[StoredExample],
    *,
    build: bool,
) -> tuple[dict[str, EncodedRow], dict[str, str]]:
    """Rows by row id, and why the template refuses those that it refuses.

    Without `build` only what the cache holds already. Raises InputError for a cache that cannot be written.
    """
    found: dict[str, EncodedRow] = {}
    refused: dict[str, str] = {}
    used: set[Path] = set()
    for name, store, own in _by_source(examples):
        where = _place(cache, store, own.keys(), chat, rules)
        used |= {store.folder.path, where.tokens.path, where.encoded.path}
        if build and not where.whole:
            with disk_errors(cache):
                _build(cache, where, chat, rules, name)
        if where.whole:
            rows, reasons = where.rows(own)
            found |= rows
            refused |= reasons
    if build and used:
        with disk_errors(cache):
            prune(cache, used)
    return found, refused


def encode_shard(
    source: Path,
    rows: Sequence[int],
    tokens: Path,
    encoded: Path,
    rules: EncodingRules,
    sent: Parcel[ChatFormat],
) -> None:
    """One shard of tokens, unless it is there, and the rows that are made of it."""
    chat = sent.open()
    if tokens.exists():
        made = token_rows(read_shard(tokens), last_only=rules.mask_cot)
    else:
        found = TokenizedRows.of(chat, contents_of(read_shard(source), rows))
        write_shard(tokens, found.batch(), compressed=True)
        made = found.rows(last_only=rules.mask_cot)
    write_shard(encoded, encoded_batch(made, rules, chat.bos_id))


def _place(
    cache: DataCache, store: ExampleStore, positions: Collection[int], chat: ChatFormat, rules: EncodingRules
) -> EncodedStore:
    """Of these rows. Where the whole data set is prepared, or tokenised, they are taken from there."""
    everything = EncodedStore.of(cache, store, Selection(None, store.usable), chat, rules)
    chosen = EncodedStore.of(cache, store, Selection.of(store, positions), chat, rules)
    if everything.whole or (everything.tokens.marker() and not chosen.whole):
        return everything
    return chosen


def _by_source(
    examples: Iterable[StoredExample],
) -> Iterator[tuple[str, ExampleStore, dict[int, StoredExample]]]:
    """Name and store of each source, and its examples by position."""
    groups: defaultdict[tuple[str, ExampleStore], dict[int, StoredExample]] = defaultdict(dict)
    for example in examples:
        groups[example.source, example.store][example.position] = example
    for (name, store), own in groups.items():
        yield name, store, own


def _build(cache: DataCache, where: EncodedStore, chat: ChatFormat, rules: EncodingRules, name: str) -> None:
    shards = where.store.batches
    with where.tokens.building(), where.encoded.building():
        if where.whole:  # another process was quicker
            return
        rows = [where.selection.of_shard(number, batch) for number, batch in enumerate(shards)]
        count = where.selection.count
        if not where.tokens.marker() and count >= _MANY:
            chat = chat.sped_up()
        # Like all `.part` files it is cleared away by the next one if this process is killed.
        sent = Parcel(where.encoded.path / f"chat.{os.getpid()}.part", chat)
        tasks = (
            Task(
                encode_shard,
                (
                    where.store.folder.shard(n),
                    rows[n],
                    where.tokens.shard(n),
                    where.encoded.shard(n),
                    rules,
                    sent,
                ),
                len(rows[n]),
            )
            for n in where.encoded.missing(len(shards))
        )
        doing = f"{'masking' if where.tokens.marker() else 'tokenising'} {name}"
        try:
            run_tasks(tasks, processes=cache.processes, rows=count, doing=doing)
        finally:
            sent.remove()
        where.tokens.finish({"rows": count})
        where.encoded.finish({"rows": count})
