"""Which rows are trained on, how often and in which order. Pure arithmetic, the same on every machine.

Order of the steps: split (distinct rows, before anything repeats), weights to counts, even draws, upsampling,
shuffle. Every choice of rows follows a hash of seed and content, so it does not depend on the rows' order.
"""

import hashlib
import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lib.data.ledger import MixLedger, SourceLine, label_lines
from lib.data.rows import Example, SourceRows
from lib.data.upsampling import multiplier_of, unmatched_rules
from lib.settings.errors import InputError, Problem


@dataclass(frozen=True)
class Mixture:
    train: tuple[Example, ...]
    """One entry per draw, in training order; a row drawn three times stands here three times."""
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
) -> Mixture:
    """Split, weigh, draw, upsample and shuffle.

    `rules` maps labels to multipliers. InputError when a rule matches no row (strict; else a notice) or when
    a source keeps no row for training.
    """
    rules = rules or {}
    unmatched = unmatched_rules(rules, [example for source in sources for example in source.examples])
    if unmatched and strict:
        raise InputError(unmatched)
    held_out = _held_out_keys(sources, val_ratio, seed)
    all_held_out = frozenset(key for keys in held_out for key in keys)
    training = [_training_rows(source, all_held_out, seed) for source in sources]
    base_size = _base_size(sources, training) if total_size is None else total_size
    shares = _shares(sources, training)
    counts = largest_remainder(base_size, shares)
    lines, draws = [], []
    for source, rows, keys, share, count in zip(sources, training, held_out, shares, counts, strict=True):
        repeats = upsample(rows, even_counts(count, len(rows)), rules)
        draws += [example for example, times in zip(rows, repeats, strict=True) for _ in range(times)]
        lines.append(_source_line(source, rows, len(keys), share, share * base_size, count, repeats))
    random.Random(seed).shuffle(draws)
    validation = _first_of_each(sources, all_held_out)
    labels, left_out = label_lines((example for rows in training for example in rows), draws)
    ledger = MixLedger(
        tuple(lines), labels, left_out, base_size, sum(counts), len(draws), validation=len(validation)
    )
    return Mixture(tuple(draws), validation, ledger, tuple(_as_warning(problem) for problem in unmatched))


def largest_remainder(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers that add up to `total`, each within one of its quota; ties go to the earlier share."""
    whole = math.fsum(shares)
    quotas = [total * share / whole for share in shares]
    counts = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda i: counts[i] - quotas[i])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def even_counts(draws: int, rows: int) -> list[int]:
    """How often each row is drawn: ⌊draws/rows⌋, and one more for the first `draws mod rows` of them."""
    if rows == 0:
        return []
    every, extra = divmod(draws, rows)
    return [every + (i < extra) for i in range(rows)]


def upsample(rows: Sequence[Example], repeats: Sequence[int], rules: Mapping[str, float]) -> list[int]:
    """The repeats after the rules multiplied them.

    Rows are grouped by multiplier (of several matching rules the largest one counts: rules never compound). A
    group with d draws gets ⌊multiplier·d + 0.5⌋, spread evenly over the rows of it that are drawn at all.
    """
    result = list(repeats)
    groups: dict[float, list[int]] = {}
    for i, row in enumerate(rows):
        if repeats[i]:
            groups.setdefault(multiplier_of(row, rules), []).append(i)
    for multiplier, members in groups.items():
        if multiplier == 1.0:
            continue
        draws = math.floor(multiplier * sum(repeats[i] for i in members) + 0.5)
        for i, times in zip(members, even_counts(draws, len(members)), strict=True):
            result[i] = times
    return result


def _held_out_keys(sources: Sequence[SourceRows], ratio: float, seed: int) -> list[list[str]]:
    """Per source, the keys of its validation rows.

    ⌊ratio·distinct + 0.5⌋ of them, at least one of two or more rows and never all. The lowest hashes of seed
    and content are taken: every stage with the same data, ratio and seed holds out the same rows.
    """
    chosen = []
    for source in sources:
        keys = {example.key for example in source.examples}
        size = math.floor(ratio * len(keys) + 0.5)
        size = min(max(size, 1), len(keys) - 1) if ratio > 0 else 0
        chosen.append(sorted(keys, key=lambda key: _rank(seed, key))[: max(size, 0)])
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
    return sorted(rows, key=lambda row: (_rank(seed, f"draw:{row.key}"), row.labels, row.index))


def _rank(seed: int, key: str) -> str:
    return hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()


def _base_size(sources: Sequence[SourceRows], training: Sequence[Sequence[Example]]) -> int:
    sizes = [len(rows) for rows in training]
    return sum(sizes) if _unweighted(sources) else max(sizes)


def _shares(sources: Sequence[SourceRows], training: Sequence[Sequence[Example]]) -> list[float]:
    """Normalised weights. Without any, every row counts the same: a source weighs as much as it has rows."""
    if _unweighted(sources):
        weights = [float(len(rows)) for rows in training]
    else:
        weights = [1.0 if source.weight is None else source.weight for source in sources]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _unweighted(sources: Sequence[SourceRows]) -> bool:
    return all(source.weight is None for source in sources)


def _first_of_each(sources: Sequence[SourceRows], keys: frozenset[str]) -> tuple[Example, ...]:
    """One row for each key, sorted by key: the same rows in the same order, however the files are sorted."""
    first: dict[str, Example] = {}
    for source in sources:
        for example in source.examples:
            if example.key in keys:
                first.setdefault(example.key, example)
    return tuple(first[key] for key in sorted(first))


def _source_line(
    source: SourceRows,
    rows: Sequence[Example],
    validation: int,
    share: float,
    requested: float,
    drawn: int,
    repeats: Iterable[int],
) -> SourceLine:
    by_row = Counter(dict(enumerate(repeats)))
    return SourceLine(
        id=source.name,
        weight=source.weight,
        share=share,
        rows=len(source.examples),
        skipped=source.skipped,
        distinct=len({example.key for example in source.examples}),
        validation=validation,
        training=len(rows),
        requested=requested,
        drawn=drawn,
        upsampled=by_row.total(),
        max_repeats=max(by_row.values(), default=0),
        unseen=sum(times == 0 for times in by_row.values()),
    )


def _as_warning(problem: Problem) -> str:
    return f"[WARNING] {problem.key} {problem.value}: {problem.expected}"
