"""Encoded rows as the data sets that a trainer takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy
from datasets import Dataset, Features, List, Value, concatenate_datasets

if TYPE_CHECKING:
    from lib.data.chat.encoded import EncodedRow
    from lib.data.order.packing import Pack

_PACKS_AT_ONCE = 1_024
_TOKENS = ("input_ids", "labels")
_FEATURES = Features(dict.fromkeys((*_TOKENS, "seq_lengths"), List(Value("int32"))))


def training_dataset(rows: Sequence[EncodedRow], packs: Sequence[Pack]) -> Dataset:
    """One entry per pack: `input_ids`, `labels` (the token where it is learned, else -100), and the lengths
    of its rows as `seq_lengths`. Rows that are kept in files stay there, unless they are packed."""
    dataset = rows_dataset(rows)
    if all(len(pack) == 1 for pack in packs):
        return _selected(dataset, [pack[0] for pack in packs])
    return _packed(dataset, packs)


def validation_dataset(rows: Sequence[EncodedRow]) -> Dataset:
    """One entry per row: `input_ids` and `labels`."""
    return rows_dataset(rows).select_columns(list(_TOKENS))


def rows_dataset(rows: Sequence[EncodedRow]) -> Dataset:
    """One entry per row. A row that stands there three times is there once, and pointed to three times."""
    from lib.data.stored.encoded_shards import StoredRow

    stored = [row for row in rows if isinstance(row, StoredRow)]
    loose = (
        {id(row): row for row in rows if not isinstance(row, StoredRow)} if len(stored) < len(rows) else {}
    )
    shards = {id(row.shard): row.shard for row in stored}
    sizes = accumulate((shard.batch.num_rows for shard in shards.values()), initial=len(loose))
    first = dict(zip(shards, sizes, strict=False))
    tables = [_in_memory(list(loose.values()))] if loose else []
    tables += [
        Dataset.from_file(str(shard.path)).select_columns(list(_FEATURES)) for shard in shards.values()
    ]
    places = {name: place for place, name in enumerate(loose)}
    chosen = [
        first[id(row.shard)] + row.number if isinstance(row, StoredRow) else places[id(row)] for row in rows
    ]
    return _selected(concatenate_datasets(tables), chosen)


def _selected(dataset: Dataset, chosen: Sequence[int]) -> Dataset:
    """As an array: `datasets` hashes what it is given, and of a list each number by itself."""
    return dataset.select(numpy.array(chosen, numpy.int64), keep_in_memory=True)


def _in_memory(rows: Sequence[EncodedRow]) -> Dataset:
    columns = {
        "input_ids": [row.input_ids for row in rows],
        "labels": [row.targets() for row in rows],
        "seq_lengths": [[row.tokens] for row in rows],
    }
    return Dataset.from_dict(columns, features=_FEATURES)


def _packed(dataset: Dataset, packs: Sequence[Pack]) -> Dataset:
    """The rows of each pack one after another, joined by pyarrow: no token becomes a Python object."""
    import pyarrow

    rows = dataset.with_format("arrow")
    tables = []
    for some in _stretches(packs):
        table = rows[[row for pack in some for row in pack]].combine_chunks()
        borders = [0]
        for pack in some:
            borders.append(borders[-1] + len(pack))
        columns = {name: _joined(table[name].combine_chunks(), borders) for name in _FEATURES}
        tables.append(pyarrow.table(columns, schema=_FEATURES.arrow_schema))
    return Dataset(pyarrow.concat_tables(tables))


def _stretches(packs: Sequence[Pack]) -> Iterator[Sequence[Pack]]:
    for first in range(0, len(packs), _PACKS_AT_ONCE):
        yield packs[first : first + _PACKS_AT_ONCE]


def _joined(lists: object, borders: Sequence[int]) -> object:
    """The lists between two borders as one list."""
    import pyarrow

    assert isinstance(lists, pyarrow.ListArray)
    ends = lists.offsets.take(pyarrow.array(borders))
    return pyarrow.ListArray.from_arrays(ends, lists.values)
