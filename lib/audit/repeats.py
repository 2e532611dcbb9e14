"""Rows that stand, or nearly stand, somewhere else as well."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lib.audit.excerpts import beginning, difference
from lib.data.mixing.cleaning import Finding
from lib.data.reading.rows import Example
from lib.data.reading.usable_rows import SourceRows

if TYPE_CHECKING:
    from lib.audit.near import NearRows


class Near(NamedTuple):
    """How near rows are told."""

    markers: Sequence[str]
    """Of SFT_OUTPUT_MARKERS: what follows is the answer."""
    threshold: float


class Match(NamedTuple):
    """A row that is, or nearly is, another one."""

    row: Example
    other: Example
    similarity: float | None
    """None: the same content."""


def examples_of(tables: Iterable[SourceRows]) -> Iterator[Example]:
    return (example for table in tables for example in table.examples)


def duplicates(tables: Sequence[SourceRows]) -> Iterator[Finding]:
    """Rows whose content stands earlier in the mix."""
    first: dict[str, Example] = {}
    for example in examples_of(tables):
        earlier = first.setdefault(example.key, example)
        if earlier is not example:
            yield _repeated("duplicate", Match(example, earlier, None))


def near_duplicates(tables: Sequence[SourceRows], near: Near) -> Iterator[Finding]:
    """Rows that are near an earlier one that stays; rows with the same content share their fate."""
    copies: dict[str, list[Example]] = {}
    for example in examples_of(tables):
        copies.setdefault(example.key, []).append(example)
    rows = [same[0] for same in copies.values()]
    for number, twin in _near_rows(rows, near).repeated(range(len(rows))):
        for row in copies[rows[number].key]:
            yield _repeated("near_duplicate", Match(row, rows[twin.number], twin.similarity))


def near_matches(rows: Iterable[Example], others: Iterable[Example], near: Near) -> list[Match]:
    """The rows that are near one of the others."""
    mine, theirs = [*rows], [*others]
    if not mine or not theirs:
        return []
    both = [*theirs, *mine]
    pairs = _near_rows(both, near).near_to(range(len(theirs), len(both)), range(len(theirs)))
    return [Match(both[number], both[twin.number], twin.similarity) for number, twin in pairs]


def _repeated(check: str, match: Match) -> Finding:
    row, other, similarity = match
    where = "in the same data set" if other.source == row.source else f"in {other.source}"
    what = "the same content" if similarity is None else "nearly the same"
    return found(check, match, f"{what} stands earlier {where}")


def found(check: str, match: Match, reason: str) -> Finding:
    row, other, similarity = match
    shown = "" if similarity is None else difference(row, other)
    return Finding(check, row.source, row.index, reason, shown or beginning(row), other.row_id, similarity)


def _near_rows(rows: Sequence[Example], near: Near) -> NearRows:
    # numpy and the MinHash library come with the first row that is compared: a plan without does without.
    from lib.audit.near import NearRows
    from lib.audit.shingles import compared_texts
    from lib.audit.sketches import sketch

    sketches = sketch((compared_texts(row, near.markers) for row in rows), near.threshold)
    return NearRows(sketches, lambda number: compared_texts(rows[number], near.markers), near.threshold)
