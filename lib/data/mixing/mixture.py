"""Which rows are trained on and how often. Pure arithmetic, the same on every machine.

Order of the steps: split (distinct rows, before anything repeats), weights to draws, upsampling, replay of
earlier stages, shuffle. docs/mixing.md explains each with an example.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lib.data.mixing.amounts import Algebra
from lib.data.mixing.ledger import MixLedger, SourceLine, label_lines
from lib.data.mixing.negatives import NO_RULE, NegativeRule
from lib.data.mixing.realised import negative_lines
from lib.data.mixing.replay import NO_REPLAY, ReplayPool, replay_rows
from lib.data.mixing.strata import Drawing, draw_rows
from lib.data.mixing.upsampling import multiplier_of, unmatched_rules, upsample
from lib.data.order.draws import check_draws, drawing_order, rank
from lib.data.reading.labels import Label
from lib.data.reading.rows import Example
from lib.data.reading.usable_rows import SourceRows
from lib.settings.errors import InputError, Problem


@dataclass(frozen=True)
class Mixture:
    train: tuple[Example, ...]
    """One entry per draw of an epoch, shuffled; a row drawn three times stands here three times."""
    validation: tuple[Example, ...]
    """Distinct held-out rows; none of their content is in `train`."""
    ledger: MixLedger
    notices: tuple[str, ...] = ()


def plan_mixture(
    sources: Sequence[SourceRows],
    *,
    val_ratio: float,
    seed: int,
    total_size: int | None = None,
    rules: Mapping[str, float] | None = None,
    strict: bool = True,
    algebra: Algebra | None = None,
    sizes: Mapping[str, int] | None = None,
    negatives: NegativeRule = NO_RULE,
    replay: ReplayPool = NO_REPLAY,
) -> Mixture:
    """Split, weigh, draw, upsample, replay and shuffle.

    `rules` maps labels to multipliers; `sizes` maps row ids to tokens, for an algebra that counts these.
    InputError when a rule matches no row (strict; else a notice), when a source keeps no row for training,
    and when the algebra refuses what the weights ask for.
    """
    algebra, rules = algebra or Algebra(total_size=total_size), rules or {}
    unmatched = unmatched_rules(rules, [example for source in sources for example in source.examples])
    if unmatched and strict:
        raise InputError(unmatched)
    tokens_of = None if sizes is None else lambda row: sizes.get(row.row_id, 0)
    split = _split(sources, val_ratio, seed, tokens_of)
    drawn = _draw(sources, split, algebra, rules, negatives)
    replayed = replay_rows(replay, len(drawn.rows), split.held_out, seed)
    draws = [*drawn.rows, *replayed.draws]
    random.Random(seed).shuffle(draws)

    requested = _requested_labels(drawn.drawing, split.training, rules, replayed.requested)
    labels, left_out = label_lines([*split.trainable, *replayed.rows], draws, requested)
    ledger = MixLedger(
        sources=(*_source_lines(sources, split, drawn), *replayed.lines),
        labels=labels,
        labels_left_out=left_out,
        base_size=drawn.drawing.total,
        drawn=sum(map(sum, drawn.drawing.repeats)),
        upsampled=len(draws),
        validation=len(split.validation),
        unit=algebra.unit,
        weights=algebra.weights,
        replayed=len(replayed.draws),
        negatives=negative_lines(split.trainable, drawn.rows, negatives, tokens_of),
    )
    warnings = [_as_warning(problem) for problem in unmatched]
    return Mixture(tuple(draws), split.validation, ledger, (*warnings, *drawn.drawing.notices))


@dataclass(frozen=True)
class _Split:
    """Distinct rows, before anything repeats. Lists have an entry per source."""

    held_out_of: list[list[str]]
    """Keys of the validation rows."""
    held_out: frozenset[str]
    training: list[list[Example]]
    """In the seeded order in which they are drawn: no key of a validation row of any source."""
    sizes: list[list[int]]
    """Of the training rows, in what the algebra counts."""
    validation: tuple[Example, ...]

    @property
    def trainable(self) -> list[Example]:
        return [example for rows in self.training for example in rows]


def _split(
    sources: Sequence[SourceRows], ratio: float, seed: int, tokens_of: Callable[[Example], int] | None
) -> _Split:
    held_out_of = held_out_keys(sources, ratio, seed)
    held_out = frozenset(key for keys in held_out_of for key in keys)
    training = [_training_rows(source, held_out, seed) for source in sources]
    sizes = [[tokens_of(row) if tokens_of else 1 for row in rows] for rows in training]
    return _Split(held_out_of, held_out, training, sizes, _first_of_each(sources, held_out))


@dataclass(frozen=True)
class _Drawn:
    """Of the stage's own sources."""

    drawing: Drawing
    repeats: list[list[int]]
    """Draws of each training row, upsampled."""
    rows: list[Example]
    """One entry per draw."""


def _draw(
    sources: Sequence[SourceRows],
    split: _Split,
    algebra: Algebra,
    rules: Mapping[str, float],
    negatives: NegativeRule,
) -> _Drawn:
    drawing = draw_rows(sources, split.training, split.sizes, algebra, negatives)
    check_draws(sum(map(sum, drawing.repeats)), "SFT_DATASET_MIX_TOTAL_SIZE or the weights")
    repeats = [upsample(rows, own, rules) for rows, own in zip(split.training, drawing.repeats, strict=True)]
    check_draws(sum(map(sum, repeats)), "SFT_UPSAMPLE_RULES")
    rows = [
        example
        for of_source, times_of in zip(split.training, repeats, strict=True)
        for example, times in zip(of_source, times_of, strict=True)
        for _ in range(times)
    ]
    return _Drawn(drawing, repeats, rows)


def held_out_keys(sources: Sequence[SourceRows], ratio: float, seed: int) -> list[list[str]]:
    """Per source, the keys of its validation rows.

    ⌊ratio·distinct + 0.5⌋ of them, at least one of two or more rows and never all. The lowest hashes of seed
    and content are taken: every stage with the same data, ratio and seed holds out the same rows.
    """
    chosen = []
    for source in sources:
        keys = {example.key for example in source.examples}
        size = math.floor(ratio * len(keys) + 0.5)
        size = min(max(size, 1), len(keys) - 1) if ratio > 0 else 0
        chosen.append(sorted(keys, key=lambda key: rank(seed, key))[:size] if size > 0 else [])
    return chosen


def _training_rows(source: SourceRows, held_out: frozenset[str], seed: int) -> list[Example]:
    """The rows left for training, in the seeded order in which they are drawn."""
    rows = [example for example in source.examples if example.key not in held_out]
    if not rows:
        raise InputError.of(
            where=source.name,
            key="SFT_VAL_RATIO",
            value=f"{len(source.examples)} rows, none left for training",
            expected="a row for training beside those held out, by this data set or one with the same rows",
            remedy="add rows, remove the data set from the mix, or lower SFT_VAL_RATIO",
        )
    return drawing_order(rows, seed)


def _first_of_each(sources: Sequence[SourceRows], keys: frozenset[str]) -> tuple[Example, ...]:
    """One row for each key, sorted by key: the same rows in the same order, however the files are sorted."""
    first: dict[str, Example] = {}
    for source in sources:
        for example in source.examples:
            if example.key in keys:
                first.setdefault(example.key, example)
    return tuple(first[key] for key in sorted(first))


def _requested_labels(
    drawing: Drawing,
    training: Sequence[Sequence[Example]],
    rules: Mapping[str, float],
    replayed: Mapping[Label, float],
) -> dict[Label, float]:
    """Draws of each label that weights and rules ask for, before limits and rounding, and those that are
    replayed."""
    requested: dict[Label, float] = {}
    for rows, passes in zip(training, drawing.passes, strict=True):
        for row, times in zip(rows, passes, strict=True):
            asked = times * multiplier_of(row, rules)
            for label in row.labels:
                requested[label] = requested.get(label, 0.0) + asked
    for label, amount in replayed.items():
        requested[label] = requested.get(label, 0.0) + amount
    return requested


def _source_lines(sources: Sequence[SourceRows], split: _Split, drawn: _Drawn) -> Iterator[SourceLine]:
    drawing = drawn.drawing
    for index, source in enumerate(sources):
        before, repeats = drawing.repeats[index], drawn.repeats[index]
        yield SourceLine(
            id=source.name,
            weight=source.weight,
            share=drawing.shares[index],
            rows=len(source.examples),
            skipped=source.skipped,
            distinct=len({example.key for example in source.examples}),
            validation=len(split.held_out_of[index]),
            training=len(split.training[index]),
            requested=drawing.shares[index] * drawing.total,
            drawn=sum(before),
            upsampled=sum(repeats),
            max_repeats=max(repeats, default=0),
            unseen=sum(times == 0 for times in repeats),
            realised=float(sum(size * t for size, t in zip(split.sizes[index], before, strict=True))),
        )


def _as_warning(problem: Problem) -> str:
    return f"[WARNING] {problem.key} {problem.value}: {problem.expected}"
