"""Negatives over the stages: what share of them was trained on, what came of it, and what to try next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lib.evaluation.retention import Interval, interval_of, metrics_of

PRECISION = "gen_offender_presence_precision"
RECALL = "gen_offender_presence_recall"
FALSE_ALARMS = "gen_fp_rate_on_negative"
WHOLE_MIX = "*"
SMALLEST_RATE = 0.01
"""Rates below it count as it: one error in a hundred rows is chance."""
LARGEST_CHANGE = 2.0
"""One stage changes the odds of negatives at most twofold."""


@dataclass(frozen=True)
class NegativeStage:
    """One stage's negatives. Shares and rates from 0 to 1; None where the record has none."""

    stage: int
    scope: str
    """`*`: the whole mix; else the data set or label that the share is about."""
    asked: float | None
    realised: float
    precision: float | None
    recall: float | None
    false_alarms: float | None


@dataclass(frozen=True)
class NegativeAdvice:
    """The share of negatives to try next; None: no other than now."""

    share: float | None
    arithmetic: str


def negative_stages(records: Sequence[Mapping[str, Any]]) -> tuple[NegativeStage, ...]:
    """One entry per stage and scope, in the order of the records."""
    found = []
    for record in records:
        scores = metrics_of(record["evaluation"], "after")
        for line in record["data"]["ledger"].get("negatives") or ():
            trained = line.get("trained")
            found.append(
                NegativeStage(
                    stage=record["stage"],
                    scope=line["scope"],
                    asked=line["requested"],
                    realised=line["trained_negatives"] / trained if trained else line["realised"],
                    precision=scores.get(PRECISION),
                    recall=scores.get(RECALL),
                    false_alarms=scores.get(FALSE_ALARMS),
                )
            )
    return tuple(found)


def suggested_negatives(record: Mapping[str, Any]) -> NegativeAdvice | None:
    """What share of negatives to try in the next stage; None where nothing was measured.

    Negatives teach a model to stay silent: more of them lower false alarms and raise misses. The odds of
    negatives are moved by the ratio of the two rates, towards where they are equal.
    """
    stages = [stage for stage in negative_stages([record]) if stage.scope == WHOLE_MIX]
    if not stages or stages[0].recall is None or stages[0].false_alarms is None:
        return None
    share, recall, alarms = stages[0].realised, stages[0].recall, stages[0].false_alarms
    misses = 1 - recall
    measured = (
        f"{alarms:.1%} false alarms on negatives and {misses:.1%} missed positives with {share:.1%} negatives"
    )
    if _overlap(record, alarms, misses):
        return NegativeAdvice(
            None, f"{measured}: the intervals of the two overlap, so there is no reason to change the share."
        )
    if not 0 < share < 1:
        kind = "positives" if share else "negatives"
        return NegativeAdvice(None, f"{measured}: mix {kind} in; one kind alone has no odds.")
    rates = max(alarms, SMALLEST_RATE), max(misses, SMALLEST_RATE)
    ratio = rates[0] / rates[1]
    factor = min(max(ratio, 1 / LARGEST_CHANGE), LARGEST_CHANGE)
    odds = share / (1 - share) * factor
    proposed = round(odds / (1 + odds), 2)
    limited = "" if factor == ratio else f", held to {factor:g}"
    return NegativeAdvice(
        proposed,
        f"{measured}: {'more' if factor > 1 else 'fewer'} negatives. Odds {share:.3f} / {1 - share:.3f} = "
        f"{share / (1 - share):.3f}, times {rates[0]:.3f} / {rates[1]:.3f} = "
        f"{ratio:.2f}{limited}, make {odds:.3f}, a share of {proposed:.2f}: "
        f"SFT_NEGATIVE_SHARE={proposed:.2f}",
    )


def _overlap(record: Mapping[str, Any], alarms: float, misses: float) -> bool:
    """Whether false alarms and misses cannot be told apart by their intervals."""
    recall = interval_of(record["evaluation"], "after", RECALL)
    of_alarms: Interval = interval_of(record["evaluation"], "after", FALSE_ALARMS) or (alarms, alarms)
    of_misses: Interval = (1 - recall[1], 1 - recall[0]) if recall else (misses, misses)
    return of_alarms[0] <= of_misses[1] and of_misses[0] <= of_alarms[1]
