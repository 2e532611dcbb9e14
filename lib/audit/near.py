"""Rows that are nearly the same as another row.

Near means: the question's and the answer's Jaccard similarity both reach the threshold, computed exactly.
MinHash only proposes whom to compare. Per row these are at most COMPARED of the rows that it meets in some
band, NEAREST of each band, the most alike by their signatures first: so time stays near linear however many
rows follow one pattern.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lib.audit.shingles import Hashes, jaccard, shingle_sets
from lib.audit.sketches import PLACES, Sketches

COMPARED = 8
NEAREST = 64
_SETS_KEPT = 1024

Numbers = NDArray[np.int64]
"""Row numbers: lines of the sketches."""


class Twin(NamedTuple):
    """The row that another one nearly is."""

    number: int
    similarity: float
    """The lower one of question and answer."""


class NearRows:
    """Finds near rows among those of `sketches`; `texts_of` gives (question, answer) by row number."""

    def __init__(
        self, sketches: Sketches, texts_of: Callable[[int], tuple[str, str]], threshold: float
    ) -> None:
        self._sketches = sketches
        self._threshold = threshold
        # A signature is a sample: so far below the threshold hardly any row that is near falls (1 in 1,000).
        self._least = threshold - 3 * (threshold * (1 - threshold) / PLACES) ** 0.5
        self._sets = lru_cache(maxsize=_SETS_KEPT)(lambda number: shingle_sets(texts_of(number)))

    def repeated(self, rows: Sequence[int]) -> Iterator[tuple[int, Twin]]:
        """Of these rows, in ascending order, each that is near an earlier one of them which was not itself
        yielded: the first stays."""
        members = np.asarray(rows, dtype=np.int64)
        kept = np.ones(len(self._sketches.bands), dtype=bool)
        meetings = _earlier_meetings(self._sketches, members)
        for number, candidates in meetings:
            twin = self._nearest(number, candidates[kept[candidates]])
            if twin:
                kept[number] = False
                yield number, twin

    def near_to(self, rows: Sequence[int], others: Sequence[int]) -> Iterator[tuple[int, Twin]]:
        """Each of these rows that is near one of the others."""
        meetings = _meetings(self._sketches, np.asarray(rows, np.int64), np.asarray(others, np.int64))
        for number, candidates in meetings:
            twin = self._nearest(number, candidates)
            if twin:
                yield number, twin

    def _nearest(self, number: int, candidates: Numbers) -> Twin | None:
        """The first of the most alike candidates that really is near."""
        places = self._sketches.places
        alike = (places[candidates] == places[number]).mean(axis=1)
        candidates, alike = candidates[alike >= self._least], alike[alike >= self._least]
        for candidate in candidates[np.lexsort((candidates, -alike))[:COMPARED]]:
            similarity = self._similarity(number, int(candidate))
            if similarity >= self._threshold:
                return Twin(int(candidate), similarity)
        return None

    def _similarity(self, one: int, other: int) -> float:
        pairs: Iterator[tuple[Hashes, Hashes]] = zip(self._sets(one), self._sets(other), strict=True)
        return min(jaccard(first, second) for first, second in pairs)


def _earlier_meetings(sketches: Sketches, members: Numbers) -> Iterator[tuple[int, Numbers]]:
    """(row, those of the members before it that share a band with it), in ascending order of rows; rows that
    meet nobody are left out."""
    orders, spans = [], []
    for band in range(sketches.bands.shape[1]):
        keys = sketches.bands[members, band]
        order = np.argsort(keys, kind="stable").astype(np.int32)  # equal keys stay in ascending order
        place = np.empty(len(members), np.int32)
        place[order] = np.arange(len(members), dtype=np.int32)
        opens = np.concatenate([[True], keys[order][1:] != keys[order][:-1]])[: len(members)]
        starts = np.maximum.accumulate(np.where(opens, np.arange(len(members)), 0)).astype(np.int32)
        orders.append(order)
        spans.append((np.maximum(starts[place], place - NEAREST), place))
    yield from _met(members, members, orders, spans)


def _meetings(sketches: Sketches, rows: Numbers, others: Numbers) -> Iterator[tuple[int, Numbers]]:
    """(row, those of the others that share a band with it)."""
    orders, spans = [], []
    for band in range(sketches.bands.shape[1]):
        keys = sketches.bands[others, band]
        order = np.argsort(keys, kind="stable").astype(np.int32)
        wanted = sketches.bands[rows, band]
        first = np.searchsorted(keys[order], wanted, side="left").astype(np.int32)
        last = np.searchsorted(keys[order], wanted, side="right").astype(np.int32)
        orders.append(order)
        spans.append((first, np.minimum(last, first + NEAREST)))
    yield from _met(rows, others, orders, spans)


def _met(
    rows: Numbers,
    others: Numbers,
    orders: Sequence[NDArray[np.int32]],
    spans: Sequence[tuple[NDArray[np.int32], NDArray[np.int32]]],
) -> Iterator[tuple[int, Numbers]]:
    """Per row the distinct others within its span of each band's order."""
    meets = np.zeros(len(rows), dtype=bool)
    for first, last in spans:
        meets |= last > first
    for row in np.flatnonzero(meets):
        found = [
            order[first[row] : last[row]]
            for order, (first, last) in zip(orders, spans, strict=True)
            if last[row] > first[row]
        ]
        yield int(rows[row]), others[np.unique(np.concatenate(found))]
