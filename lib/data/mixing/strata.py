"""From weights to how often each row is drawn. A stratum is what an amount is given to: the rows of a data
set, or, where a share of negatives is declared, its negatives and its positives apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lib.data.mixing.amounts import Algebra, Amounts, asked_amounts, exhausted_parts, granted_amounts
from lib.data.mixing.negatives import Kind, NegativeRule, scaled_parts, unreachable_shares
from lib.data.order.draws import even_counts, even_draws_of_size
from lib.data.reading.rows import Example
from lib.data.reading.usable_rows import SourceRows
from lib.settings.errors import InputError, Problem


@dataclass(frozen=True)
class Stratum:
    source: int
    """Index of its data set."""
    kind: Kind
    rows: tuple[int, ...]
    """Positions among the data set's training rows, in the order in which they are drawn."""
    sizes: tuple[int, ...]
    """Of these rows, in the unit of the mix."""

    @cached_property
    def size(self) -> int:
        return sum(self.sizes)


@dataclass(frozen=True)
class Drawing:
    """Per data set: its share of what is asked for, and per row how often it is drawn, before upsampling."""

    total: float
    """What is asked for of all data sets, in the unit of the mix."""
    shares: list[float]
    repeats: list[list[int]]
    passes: list[list[float]]
    """How often the weights ask for each row, before limits and rounding."""
    notices: tuple[str, ...]


def draw_rows(
    sources: Sequence[SourceRows],
    training: Sequence[Sequence[Example]],
    sizes: Sequence[Sequence[int]],
    algebra: Algebra,
    negatives: NegativeRule,
) -> Drawing:
    """How often each training row is drawn. `training` is in drawing order; `sizes` are the rows' sizes.

    Raises InputError for a data set without anything to train on, for a share of negatives that these rows
    cannot have, and for a data set that is asked for too much where the algebra refuses that.
    """
    _check_sizes(sources, sizes)
    by_weight = asked_amounts([source.weight for source in sources], [sum(own) for own in sizes], algebra)
    strata = _strata(sources, training, sizes, negatives)
    parts = _parts(by_weight, strata, [sum(own) for own in sizes])
    kinds = [stratum.kind for stratum in strata]
    problems = unreachable_shares(kinds, negatives)
    if problems:
        raise InputError(problems)
    asked = Amounts(by_weight.total, tuple(scaled_parts(parts, kinds, negatives.shares)))
    notices = _exhausted(asked, strata, sources, algebra)
    granted = granted_amounts(asked, [stratum.size for stratum in strata], algebra)

    shares = [0.0 for _ in sources]
    repeats = [[0] * len(rows) for rows in training]
    passes = [[0.0] * len(rows) for rows in training]
    drawn = _times(granted, strata, algebra)
    for stratum, part, amount, times_of in zip(strata, asked.parts, asked.each(), drawn, strict=True):
        shares[stratum.source] += part
        for row, times in zip(stratum.rows, times_of, strict=True):
            repeats[stratum.source][row] = times
            passes[stratum.source][row] = amount / max(stratum.size, 1)
    return Drawing(by_weight.total, shares, repeats, passes, notices)


def _strata(
    sources: Sequence[SourceRows],
    training: Sequence[Sequence[Example]],
    sizes: Sequence[Sequence[int]],
    negatives: NegativeRule,
) -> list[Stratum]:
    strata = []
    for number, (source, rows, own) in enumerate(zip(sources, training, sizes, strict=True)):
        members: dict[Kind, list[int]] = {}
        for position, row in enumerate(rows):
            members.setdefault(negatives.kind(source.name, row), []).append(position)
        strata += [
            Stratum(number, kind, tuple(positions), tuple(own[position] for position in positions))
            for kind, positions in sorted(members.items(), key=lambda member: str(member[0]))
        ]
    return strata


def _parts(by_weight: Amounts, strata: Sequence[Stratum], sizes: Sequence[int]) -> list[float]:
    """What the weights give each stratum: its part of its data set's part."""
    return [
        by_weight.parts[stratum.source]
        * (1.0 if stratum.size == sizes[stratum.source] else stratum.size / sizes[stratum.source])
        for stratum in strata
    ]


def _times(granted: Amounts, strata: Sequence[Stratum], algebra: Algebra) -> list[list[int]]:
    """Per stratum, how often each of its rows is drawn."""
    if algebra.unit == "rows":
        counts = granted.rounded()
        return [even_counts(count, len(stratum.rows)) for count, stratum in zip(counts, strata, strict=True)]
    return [
        even_draws_of_size(amount, stratum.sizes)
        for amount, stratum in zip(granted.each(), strata, strict=True)
    ]


def _exhausted(
    asked: Amounts, strata: Sequence[Stratum], sources: Sequence[SourceRows], algebra: Algebra
) -> tuple[str, ...]:
    """Notices about strata that are asked for more than they have; InputError where that is refused."""
    sizes = [stratum.size for stratum in strata]
    amounts, unit = asked.each(), algebra.unit.replace("_", " ")
    found = [
        (_name(strata[i], sources), f"{amounts[i]:,.0f} {unit} of {sizes[i]:,}")
        for i in exhausted_parts(asked, sizes, algebra)
    ]
    limit = "at most once each" if algebra.limit == 1 else f"at most {algebra.limit} times each"
    if found and algebra.exhausted == "error":
        raise InputError(
            [
                Problem(
                    where=name,
                    key="SFT_MIX_EXHAUSTED",
                    value=f"error; the mix asks for {amount}",
                    expected=f"no more than it has, drawn {limit}",
                    remedy="lower its weight or SFT_DATASET_MIX_TOTAL_SIZE, raise SFT_MIX_MAX_REPEATS, or "
                    "set SFT_MIX_EXHAUSTED to repeat or stop",
                )
                for name, amount in found
            ]
        )
    outcome = "the whole mix is smaller" if algebra.exhausted == "stop" else "the rest is left out"
    return tuple(
        f"[WARNING] the mix asks for {amount} of {name}, drawn {limit}: {outcome} (SFT_MIX_EXHAUSTED)"
        for name, amount in found
    )


def _name(stratum: Stratum, sources: Sequence[SourceRows]) -> str:
    name = sources[stratum.source].name
    if stratum.kind is None:
        return name
    return f"{name} ({'negatives' if stratum.kind[1] else 'positives'})"


def _check_sizes(sources: Sequence[SourceRows], sizes: Sequence[Sequence[int]]) -> None:
    problems = [
        Problem(
            where=source.name,
            key="SFT_MIX_UNIT",
            value=f"{len(own)} rows without a token to count",
            expected="rows that are trained on: these are too long, or nothing of them is learned",
            remedy="raise SFT_MAX_SEQ_LEN, check SFT_OUTPUT_MARKERS, or remove the data set from the mix",
        )
        for source, own in zip(sources, sizes, strict=True)
        if own and not sum(own)
    ]
    if problems:
        raise InputError(problems)
