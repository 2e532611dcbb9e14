"""The metrics of a stage before and after training, as they are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lib.evaluation.retention import Interval, headline_metric, interval_of, metrics_of
from lib.settings.metrics import METRICS


@dataclass(frozen=True)
class Measured:
    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Score:
    metric: str
    before: Measured | None
    after: Measured | None

    @property
    def higher_is_better(self) -> bool:
        """A score of the answers between 0 and 1, of which 1 is perfect: such scores share an axis."""
        return self.metric.startswith("gen_") and METRICS.get(self.metric.partition("/")[0]) == "max"

    @property
    def label(self) -> str:
        """The part of the metric's name that says which rows it is about; "" for all rows."""
        return self.metric.partition("/")[2]


@dataclass(frozen=True)
class Retained:
    """What is left of an earlier stage's skill."""

    stage: int
    metric: str
    earlier: float | None
    now: float | None
    interval: Interval | None
    minimum: float | None
    """The part of the earlier score that must be left; None when nothing is demanded."""
    passed: bool | None


def scores(evaluation: Mapping[str, Any]) -> tuple[Score, ...]:
    """The headline first, then the others as the record names them."""
    headline = headline_metric(evaluation)
    names = dict.fromkeys([*metrics_of(evaluation, "before"), *metrics_of(evaluation, "after")])
    ordered = sorted(names, key=lambda name: name != headline)
    return tuple(
        Score(name, _measured(evaluation, "before", name), _measured(evaluation, "after", name))
        for name in ordered
    )


def retained(evaluation: Mapping[str, Any]) -> tuple[Retained, ...]:
    """One entry per earlier stage that was scored again."""
    entries: Sequence[Mapping[str, Any]] = evaluation.get("retention") or ()
    return tuple(
        Retained(
            stage=int(entry["stage"]),
            metric=str(entry.get("headline", "")),
            earlier=entry.get("earlier"),
            now=entry.get("now"),
            interval=(entry["interval"][0], entry["interval"][1]) if entry.get("interval") else None,
            minimum=entry.get("minimum"),
            passed=entry.get("passed"),
        )
        for entry in entries
    )


def _measured(evaluation: Mapping[str, Any], when: str, name: str) -> Measured | None:
    value = metrics_of(evaluation, when).get(name)
    return None if value is None else Measured(float(value), interval_of(evaluation, when, name))
