"""Tokens of rows, before truncation and masks, as Arrow batches."""

from collections.abc import Sequence
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


def token_batch(chat: ChatFormat, examples: Sequence[Example]) -> pyarrow.RecordBatch:
    """All answers of every row, so that any mask can be made of it."""
    every = chat.tokenize(examples, last_only=False)
    reasons = [row if isinstance(row, str) else None for row in every]
    again = [example for example, reason in zip(examples, reasons, strict=True) if reason is not None]
    last = iter(chat.tokenize(again, last_only=True))
    found = [next(last) if isinstance(row, str) else row for row in every]
    rows = [None if isinstance(row, str) else row for row in found]
    columns = {
        "ids": _integers([row.ids if row else () for row in rows]),
        "first": [[answer.first for answer in row.answers] if row else [] for row in rows],
        "texts": [[answer.text for answer in row.answers] if row else [] for row in rows],
        "starts": _nested([[answer.starts for answer in row.answers] if row else [] for row in rows]),
        "plain": [bool(row and row.plain) for row in rows],
        "refused": [row if isinstance(row, str) else None for row in found],
        "refused_earlier": reasons,
    }
    return pyarrow.RecordBatch.from_pydict(columns, schema=_SCHEMA)


def token_rows(batch: pyarrow.RecordBatch, *, last_only: bool) -> list[TokenRow | str]:
    """As `ChatFormat.tokenize` gives them; their ids are arrays."""
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
