"""Rules that multiply rows by their labels."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from lib.data.order.draws import even_counts
from lib.data.reading.labels import Label
from lib.data.reading.rows import Example
from lib.settings.errors import Problem
from lib.settings.suggestions import did_you_mean

SHOWN_LABELS = 40


def multiplier_of(example: Example, rules: Mapping[str, float]) -> float:
    """The largest multiplier among the rules that match a label of the row; 1.0 when none does."""
    if not rules:
        return 1.0
    return max((rules[label.value] for label in example.labels if label.value in rules), default=1.0)


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


def unmatched_rules(rules: Mapping[str, float], examples: Iterable[Example]) -> tuple[Problem, ...]:
    """One problem for each rule that matches no row, listing the labels that exist."""
    if not rules:
        return ()
    counts = Counter(label for example in examples for label in example.labels)
    values = {label.value for label in counts}
    return tuple(
        Problem(
            where="data sets of the mix",
            key="SFT_UPSAMPLE_RULES",
            value=f'"{rule}" matches no row',
            expected=f"a label that the rows have; {_existing(counts)}",
            remedy=f"{did_you_mean(rule, sorted(values))} Correct or remove the rule".strip(),
        )
        for rule in rules
        if rule not in values
    )


def _existing(counts: Mapping[Label, int]) -> str:
    if not counts:
        return "these rows have no labels at all"
    frequent = sorted(counts, key=lambda label: (-counts[label], label))[:SHOWN_LABELS]
    fields: dict[str, list[str]] = {}
    for field, value in frequent:
        fields.setdefault(field, []).append(f"{value} ({counts[Label(field, value)]})")
    listed = "; ".join(f"{field}: {', '.join(values)}" for field, values in sorted(fields.items()))
    more = len(counts) - len(frequent)
    return listed + (f"; and {more} rarer ones" if more else "")
