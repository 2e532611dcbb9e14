"""How much of each data set a mix asks for: the algebra of weights. Pure arithmetic; docs/mixing.md explains
it with examples.

Amounts are in the unit of the mix: rows, tokens or supervised tokens.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lib.settings.schema import DataSettings

Unit = Literal["rows", "tokens", "supervised_tokens"]


@dataclass(frozen=True)
class Algebra:
    """What the weights of a mix mean, and what happens where a data set has too little."""

    weights: Literal["share", "multiplier", "cap"] = "share"
    unit: Unit = "rows"
    total_size: int | None = None
    """Of a mix of shares; None: as much as its largest data set has, or everything without weights."""
    exhausted: Literal["repeat", "stop", "error"] = "repeat"
    max_repeats: int | None = None

    @classmethod
    def of(cls, data: DataSettings) -> "Algebra":
        return cls(
            data.mix_weights, data.mix_unit, data.mix_total_size, data.mix_exhausted, data.mix_max_repeats
        )

    @property
    def limit(self) -> int | None:
        """How often a row may be drawn; None: any number of times."""
        return self.max_repeats or (None if self.exhausted == "repeat" else 1)


@dataclass(frozen=True)
class Amounts:
    """A whole and the parts that it falls into; only the ratio of the parts counts."""

    total: float
    parts: tuple[float, ...]

    def each(self) -> list[float]:
        """The parts as amounts, which add up to the total."""
        whole = math.fsum(self.parts)
        return [self.total * part / whole for part in self.parts] if whole else [0.0 for _ in self.parts]

    def rounded(self) -> list[int]:
        """The same as whole numbers, which add up to the rounded total."""
        return largest_remainder(math.floor(self.total + 0.5), self.parts)


def asked_amounts(weights: Sequence[float | None], sizes: Sequence[float], algebra: Algebra) -> Amounts:
    """What the weights ask for of data sets of these sizes; without a weight, a data set as it is.

    share: its part of the whole, which is the total size or the largest data set's. Without any weight every
    row counts the same. multiplier: times its own size. cap: its own size, at most the weight.
    """
    if algebra.weights == "share":
        unweighted = all(weight is None for weight in weights)
        parts = (
            [float(size) for size in sizes]
            if unweighted
            else [1.0 if weight is None else weight for weight in weights]
        )
        size = sum(sizes) if unweighted else max(sizes)
        whole = math.fsum(parts)
        total = size if algebra.total_size is None else algebra.total_size
        return Amounts(total, tuple(part / whole for part in parts))
    if algebra.weights == "multiplier":
        parts = [
            size * (1.0 if weight is None else weight) for weight, size in zip(weights, sizes, strict=True)
        ]
    else:
        parts = [
            size if weight is None else min(weight, size) for weight, size in zip(weights, sizes, strict=True)
        ]
    total = math.fsum(parts)
    return Amounts(total, tuple(part / total for part in parts))


def exhausted_parts(asked: Amounts, sizes: Sequence[float], algebra: Algebra) -> list[int]:
    """Indices of the parts that are asked for more than their size allows."""
    if algebra.limit is None:
        return []
    amounts = asked.rounded() if algebra.unit == "rows" else asked.each()
    limits = [algebra.limit * size * (1 + 1e-9) for size in sizes]
    return [i for i, (amount, limit) in enumerate(zip(amounts, limits, strict=True)) if amount > limit]


def granted_amounts(asked: Amounts, sizes: Sequence[float], algebra: Algebra) -> Amounts:
    """What is drawn where some parts are asked for more than they have.

    repeat: such a part gives what its limit allows, the others stay. stop: the whole shrinks until no part is
    asked for too much; the shares stay.
    """
    if algebra.limit is None or not exhausted_parts(asked, sizes, algebra):
        return asked
    amounts = asked.each()
    limits = [algebra.limit * size for size in sizes]
    if algebra.exhausted == "stop":
        factor = min(limit / amount for amount, limit in zip(amounts, limits, strict=True) if amount > limit)
        shrunk = Amounts(asked.total * factor, asked.parts)
    else:
        held = tuple(min(amount, limit) for amount, limit in zip(amounts, limits, strict=True))
        shrunk = Amounts(math.fsum(held), held)
    if algebra.unit != "rows":
        return shrunk
    # Rounded down: one row more could be one that the scarcest part does not have.
    return Amounts(math.floor(shrunk.total + 1e-9), shrunk.parts)


def largest_remainder(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers that add up to `total`, each within one of its quota; ties go to the earlier share."""
    whole = math.fsum(shares)
    if not whole:
        return [0 for _ in shares]
    quotas = [total * share / whole for share in shares]
    counts = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda i: counts[i] - quotas[i])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts
