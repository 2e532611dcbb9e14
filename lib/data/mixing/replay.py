"""Rows that earlier stages learned from, drawn again against forgetting."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lib.data.mixing.ledger import SourceLine
from lib.data.order.draws import check_draws, drawing_order
from lib.data.reading.labels import Label
from lib.data.reading.rows import Example


@dataclass(frozen=True)
class ReplaySource:
    """A data set of an earlier stage, as that stage drew from it."""

    stage: int
    name: str
    """Its own in this stage's mix: `stage 1: data/x.jsonl`."""
    draws: tuple[Example, ...]
    """One entry per draw of that stage's epoch, named after this source."""

    @classmethod
    def of(cls, stage: int, name: str, draws: Sequence[Example]) -> "ReplaySource":
        own = f"stage {stage}: {name}"
        return cls(stage, own, tuple(example.renamed(own) for example in draws))


@dataclass(frozen=True)
class ReplayPool:
    """What a stage may draw from earlier ones."""

    share: float
    """Of all draws of the stage."""
    sources: tuple[ReplaySource, ...] = ()
    excluded: frozenset[str] = frozenset()
    """Keys of rows that some stage is evaluated on."""

    def size(self, own: int) -> int:
        """Draws that make `share` of the whole beside `own` draws: ⌊own · share / (1 - share) + 0.5⌋."""
        return math.floor(own * self.share / (1 - self.share) + 0.5) if self.sources else 0


NO_REPLAY = ReplayPool(0.0)


@dataclass(frozen=True)
class Replay:
    """What a stage draws from earlier ones."""

    draws: tuple[Example, ...] = ()
    """One entry per draw."""
    rows: tuple[Example, ...] = ()
    """Distinct rows that could be drawn."""
    lines: tuple[SourceLine, ...] = ()
    """One line of the mix table per data set of an earlier stage."""
    requested: Mapping[Label, float] = field(default_factory=dict)
    """Draws that each label's part of the earlier stages comes to, before rounding."""


def replay_rows(pool: ReplayPool, own: int, held_out: frozenset[str], seed: int) -> Replay:
    """The rows that are replayed beside `own` draws.

    The earlier stages' draws are laid out by data set and labels, and rows are taken from them at equal
    distances (systematic sampling): every data set, and within it every combination of labels, gets its part
    of what was drawn then, to within one row. Rows that any stage is evaluated on are not there.
    """
    by_source = [_laid_out(source, pool, held_out, seed) for source in pool.sources]
    there = [draw for draws in by_source for draw in draws]
    size = pool.size(own) if there else 0
    check_draws(size, "SFT_REPLAY")
    draws = [there[(2 * i + 1) * len(there) // (2 * size)] for i in range(size)]
    taken = Counter(example.row_id for example in draws)
    labels = Counter(label for example in there for label in example.labels)
    return Replay(
        draws=tuple(draws),
        rows=tuple({example.row_id: example for example in there}.values()),
        lines=tuple(
            _line(source, rows, len(rows) / max(len(there), 1), size, taken)
            for source, rows in zip(pool.sources, by_source, strict=True)
        ),
        requested={label: size * count / len(there) for label, count in labels.items()},
    )


def _laid_out(source: ReplaySource, pool: ReplayPool, held_out: frozenset[str], seed: int) -> list[Example]:
    """Draws that may be replayed, by labels; of each combination every row once before any comes again."""
    strata: dict[tuple[Label, ...], Counter[str]] = {}
    rows: dict[str, Example] = {}
    for example in source.draws:
        if example.key not in pool.excluded and example.key not in held_out:
            rows[example.row_id] = example
            strata.setdefault(example.labels, Counter())[example.row_id] += 1
    laid_out = []
    for labels in sorted(strata):
        times = strata[labels]
        ordered = drawing_order((rows[name] for name in times), seed)
        for round_ in range(max(times.values())):
            laid_out += [row for row in ordered if times[row.row_id] > round_]
    return laid_out


def _line(
    source: ReplaySource, there: Sequence[Example], share: float, size: int, taken: Counter[str]
) -> SourceLine:
    rows = {example.row_id: example for example in source.draws}
    usable = {example.row_id for example in there}
    drawn = [taken[name] for name in usable]
    return SourceLine(
        id=source.name,
        weight=None,
        share=share,
        rows=len(rows),
        skipped=0,
        distinct=len({example.key for example in rows.values()}),
        validation=0,
        training=len(usable),
        requested=share * size,
        drawn=sum(drawn),
        upsampled=sum(drawn),
        max_repeats=max(drawn, default=0),
        unseen=sum(times == 0 for times in drawn),
        realised=float(sum(drawn)),
        replay_of=source.stage,
    )
