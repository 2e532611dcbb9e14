"""Rows that are ready to be trained on as Arrow batches, and rows that read their tokens when asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pyarrow

from lib.data.chat.encoded import DROPPED, IGNORED, EncodedRow, Status
from lib.data.chat.masks import EncodingRules, Mask, mask_of
from lib.data.chat.tokens import TokenRow
from lib.data.reading.labels import Label
from lib.data.reading.rows import Example
from lib.data.stored.folder import read_shard

STATUSES: tuple[Status, ...] = ("ok", "truncated", "too_long", "nothing_supervised", "unrenderable")
_INTEGERS = pyarrow.list_(pyarrow.int32())
_COUNTS = ("tokens", "supervised", "answer_tokens", "cut_tokens")
Counts = tuple[int, int, int, int]
SCHEMA = pyarrow.schema(
    {
        "input_ids": _INTEGERS,
        "labels": _INTEGERS,
        "seq_lengths": _INTEGERS,
        "status": pyarrow.int8(),
        **dict.fromkeys(_COUNTS, pyarrow.int32()),
        "refused": pyarrow.string(),
    }
)
"""The first three are what a trainer takes: tokens, the token where it is learned and else -100, and the
length of the row."""
_NOTHING = Mask("unrenderable", 0, 0, 0, (), 0)


def encoded_batch(
    rows: Sequence[TokenRow | str], rules: EncodingRules, bos_id: int | None
) -> pyarrow.RecordBatch:
    masks = [_mask(row, rules, bos_id) for row in rows]
    lengths = numpy.array([mask.tokens for mask in masks], numpy.int32)
    offsets = numpy.concatenate([[0], lengths.cumsum()]).astype(numpy.int32)
    ids = numpy.empty(int(offsets[-1]), numpy.int32)
    labels = numpy.full(int(offsets[-1]), IGNORED, numpy.int32)
    for row, mask, start in zip(rows, masks, offsets[:-1], strict=True):
        if isinstance(row, str):
            continue
        behind = start + mask.front
        ids[start:behind] = row.ids[: mask.front]
        ids[behind : start + mask.tokens] = row.ids[mask.begin : mask.end]
        for first, last in mask.learned:
            labels[start + first : start + last] = ids[start + first : start + last]
    columns: dict[str, Any] = {
        "input_ids": pyarrow.ListArray.from_arrays(offsets, ids),
        "labels": pyarrow.ListArray.from_arrays(offsets, labels),
        "seq_lengths": pyarrow.ListArray.from_arrays(numpy.arange(len(rows) + 1, dtype=numpy.int32), lengths),
        "status": [STATUSES.index(mask.status) for mask in masks],
        "tokens": lengths,
        "supervised": [mask.supervised_tokens for mask in masks],
        "answer_tokens": [mask.answer_tokens for mask in masks],
        "cut_tokens": [mask.cut_tokens for mask in masks],
        "refused": [row if isinstance(row, str) else None for row in rows],
    }
    return pyarrow.RecordBatch.from_pydict(columns, schema=SCHEMA)


def _mask(row: TokenRow | str, rules: EncodingRules, bos_id: int | None) -> Mask:
    if isinstance(row, str):
        return _NOTHING
    bos = bos_id is not None and len(row.ids) > 0 and int(row.ids[0]) == bos_id
    return mask_of(row.answers, len(row.ids), rules, plain=row.plain, bos=bos)


@dataclass(frozen=True)
class EncodedShard:
    path: Path
    batch: pyarrow.RecordBatch

    @classmethod
    def open(cls, path: Path) -> "EncodedShard":
        return cls(path, read_shard(path))

    def numbers(self) -> list[tuple[Status, Counts]]:
        """Status and counts of every row."""
        counts = zip(*(self.batch[name].to_pylist() for name in _COUNTS), strict=True)
        statuses = (STATUSES[status] for status in self.batch["status"].to_pylist())
        return list(zip(statuses, counts, strict=True))


class StoredRow(EncodedRow):
    """An encoded row whose tokens are read from the file each time they are asked for. There may be millions,
    so what is left of them is in slots."""

    __slots__ = ("example", "number", "shard", "supervised_tokens", "tokens", "usable")
    example: Example
    shard: EncodedShard
    number: int
    usable: bool
    tokens: int
    supervised_tokens: int

    def __init__(
        self, example: Example, shard: EncodedShard, number: int, status: Status, counts: Counts
    ) -> None:
        """Row `number` of `shard`; `counts` are those of the schema."""
        tokens, supervised, answer_tokens, cut_tokens = counts
        put = object.__setattr__  # as the constructor of a frozen dataclass does
        put(self, "example", example)
        put(self, "shard", shard)
        put(self, "number", number)
        put(self, "status", status)
        put(self, "usable", status not in DROPPED)
        put(self, "tokens", tokens)
        put(self, "supervised_tokens", supervised)
        put(self, "answer_tokens", answer_tokens)
        put(self, "cut_tokens", cut_tokens)

    @property
    def row_id(self) -> str:
        return self.example.row_id

    @property
    def source(self) -> str:
        return self.example.source

    @property
    def labels(self) -> tuple[Label, ...]:
        return self.example.labels

    @property
    def input_ids(self) -> list[int]:
        ids: list[int] = self.shard.batch["input_ids"][self.number].as_py()
        return ids

    @property
    def supervised(self) -> list[bool]:
        return [label != IGNORED for label in self.targets()]

    def targets(self) -> list[int]:
        labels: list[int] = self.shard.batch["labels"][self.number].as_py()
        return labels
