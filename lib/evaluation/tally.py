"""Every metric is a ratio of two sums over rows, so one piece of code aggregates, groups and resamples them.

A mean is Σx / Σ1, precision Σtp / Σ(tp + fp), micro F1 Σ2tp / Σ(2tp + fp + fn): each row brings its own
numerator and denominator, and whoever has the table of rows can add up every number again.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

Tally = Mapping[str, tuple[float, float]]
"""Metric → (numerator, denominator) that one row contributes; a metric left out contributes nothing."""

GROUPS = range(2, 21)
"""How many different values a label may have to be worth grouping by."""
DRAWS_HELD = 10_000_000
"""Rows x resamples in memory at a time: 80 MB."""
UNNAMEABLE = re.compile(r"[^\w.\- ]|^\.+|\.+$")
"""What trackers refuse in a metric's name, or would take for a path."""


def ratios(tallies: Sequence[Tally]) -> dict[str, float]:
    """Σ numerators / Σ denominators of every metric; those of all rows first, then those of groups, by name.

    A metric whose denominators add up to 0 says nothing and is left out. Sums are exact (`math.fsum`): the
    order of rows does not matter.
    """
    shares: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for tally in tallies:
        for name, share in tally.items():
            shares[name].append(share)
    sums = {name: [math.fsum(side) for side in zip(*parts, strict=True)] for name, parts in shares.items()}
    ordered = sorted(sums.items(), key=lambda item: ("/" in item[0], item[0]))
    return {name: top / bottom for name, (top, bottom) in ordered if bottom}


def intervals(
    tallies: Sequence[Tally], *, seed: int = 0, resamples: int = 1000, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """(low, high) of every metric that `ratios` gives: percentile bootstrap over rows.

    Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. Rows are drawn with replacement,
    numerator and denominator together; a resample in which a metric's denominators add up to 0 is left out of
    that metric. Says how much the choice of rows matters, not how much another training run would.
    """
    import numpy as np

    names = list(ratios(tallies))
    if not names:
        return {}
    shares = np.array([[tally.get(name, (0.0, 0.0)) for name in names] for tally in tallies], dtype=float)
    rows, random = len(tallies), np.random.default_rng(seed)
    resampled = []
    for size in _in_bounds(resamples, max(1, DRAWS_HELD // rows)):
        times = random.multinomial(rows, np.full(rows, 1 / rows), size=size).astype(float)
        resampled.append((times @ shares[..., 0], times @ shares[..., 1]))
    tops, bottoms = (np.concatenate(side) for side in zip(*resampled, strict=True))
    tail = (1 - level) / 2
    found = {}
    for column, name in enumerate(names):
        drawable = bottoms[:, column] > 0
        if drawable.any():
            values = tops[drawable, column] / bottoms[drawable, column]
            low, high = np.quantile(values, (tail, 1 - tail))
            found[name] = (float(low), float(high))
    return found


def _in_bounds(whole: int, most: int) -> list[int]:
    """`whole` as parts of `most`, and the rest."""
    return [min(most, whole - begun) for begun in range(0, whole, most)]


def by_label(
    tallies: Sequence[Tally], labels: Sequence[Mapping[str, str]], metrics: Collection[str]
) -> list[Tally]:
    """The tallies with `metric/field/value` added for the chosen metrics and the labels of each row.

    Only fields with 2 to 20 different values: one value is the whole, and more are no groups. Whatever a
    tracker refuses in a name (`=` among others) becomes `_`.
    """
    values: dict[str, set[str]] = defaultdict(set)
    for row in labels:
        for field, value in row.items():
            values[field].add(value)
    grouped = {field for field, found in values.items() if len(found) in GROUPS}

    def groups(row: Mapping[str, str]) -> list[str]:
        return [f"{nameable(field)}/{nameable(row[field])}" for field in row if field in grouped]

    return [
        {**tally, **{f"{m}/{group}": tally[m] for m in metrics if m in tally for group in groups(row)}}
        for tally, row in zip(tallies, labels, strict=True)
    ]


def nameable(text: str) -> str:
    """A label's field or value as a part of a metric's name."""
    return UNNAMEABLE.sub("_", text) or "_"
