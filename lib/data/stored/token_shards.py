"""Tokens of rows, before truncation and masks, as Arrow batches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy
import pyarrow

from lib.data.chat.chat_format import ChatFormat
from lib.data.chat.tokens import AnswerTokens, TokenRow
from lib.data.reading.rows import Example

_INTEGERS = pyarrow.list_(pyarrow.int32())
_SCHEMA = pyarrow.schema(
    {
        "ids": _INTEGERS,
        "first": _INTEGERS,
        "texts": pyarrow.list_(pyarrow.large_string()),
        "starts": pyarrow.list_(_INTEGERS),
        "plain": pyarrow.bool_(),
        "refused": pyarrow.string(),
        "refused_earlier": pyarrow.string(),
    }
)
"""One row a row: `ids`; per answer `first`, `texts` and `starts` (AnswerTokens); why the template refuses the
row, and why it refuses to show answers before the last, which only matters where these are learned."""


@dataclass(frozen=True)
class TokenizedRows:
    """Rows with all of their answers, so that any mask can be made; or why the template refuses them."""

    every: list[TokenRow | str]
    """Refused where the template refuses to show any of the answers."""
    shown: list[TokenRow | str]
    """Refused where it refuses to show the last."""

    @classmethod
    def of(cls, chat: ChatFormat, examples: Sequence[Example]) -> "TokenizedRows":
        every = chat.tokenize(examples, last_only=False)
        again = [example for example, row in zip(examples, every, strict=True) if isinstance(row, str)]
        last = iter(chat.tokenize(again, last_only=True))
        return cls(every, [next(last) if isinstance(row, str) else row for row in every])

    def rows(self, *, last_only: bool) -> list[TokenRow | str]:
        """As `ChatFormat.tokenize` gives them."""
        if not last_only:
            return self.every
        return [row if isinstance(row, str) else replace(row, answers=row.answers[-1:]) for row in self.shown]

    def batch(self) -> pyarrow.RecordBatch:
        rows = [None if isinstance(row, str) else row for row in self.shown]
        columns = {
            "ids": _integers([row.ids if row else () for row in rows]),
            "first": [[answer.first for answer in row.answers] if row else [] for row in rows],
            "texts": [[answer.text for answer in row.answers] if row else [] for row in rows],
            "starts": _nested([[answer.starts for answer in row.answers] if row else [] for row in rows]),
            "plain": [bool(row and row.plain) for row in rows],
            "refused": [row if isinstance(row, str) else None for row in self.shown],
            "refused_earlier": [row if isinstance(row, str) else None for row in self.every],
        }
        return pyarrow.RecordBatch.from_pydict(columns, schema=_SCHEMA)


def token_rows(batch: pyarrow.RecordBatch, *, last_only: bool) -> list[TokenRow | str]:
    """As `TokenizedRows.rows` gives them, from a batch."""
    ids = integers_of(batch["ids"])
    columns = [batch[name].to_pylist() for name in ("first", "texts", "starts", "plain")]
    refused = batch["refused" if last_only else "refused_earlier"].to_pylist()
    rows: list[TokenRow | str] = []
    for own, reason, first, texts, starts, plain in zip(ids, refused, *columns, strict=True):
        if reason is not None:
            rows.append(reason)
        else:
            answers = tuple(map(AnswerTokens, first, texts, starts))
            rows.append(TokenRow(own, answers[-1:] if last_only else answers, plain))
    return rows


def integers_of(column: pyarrow.ListArray) -> list[numpy.ndarray]:
    """Each list as an array that is not copied."""
    values = column.values.to_numpy()
    offsets = column.offsets.to_pylist()
    return [values[first:last] for first, last in pairwise(offsets)]


def _integers(rows: Sequence[Sequence[int]]) -> pyarrow.ListArray:
    offsets = numpy.zeros(len(rows) + 1, numpy.int32)
    numpy.cumsum([len(row) for row in rows], out=offsets[1:])
    values = numpy.empty(int(offsets[-1]), numpy.int32)
    for row, first, last in zip(rows, offsets[:-1], offsets[1:], strict=True):
        values[first:last] = row
    return pyarrow.ListArray.from_arrays(offsets, values)


def _nested(rows: Sequence[Sequence[Sequence[int]]]) -> pyarrow.ListArray:
    offsets = numpy.zeros(len(rows) + 1, numpy.int32)
    numpy.cumsum([len(row) for row in rows], out=offsets[1:])
    return pyarrow.ListArray.from_arrays(offsets, _integers([own for row in rows for own in row]))
