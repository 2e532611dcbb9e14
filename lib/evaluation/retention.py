"""Which model knows what: the scores of every model of a curriculum on every stage's evaluation set.

Pure arithmetic over stage records, free of torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Interval = tuple[float, float]
PARSE_RATE = "gen_parse_rate"
"""The headline of records that name none."""


@dataclass(frozen=True)
class Matrix:
    """Rows are models, columns are evaluation sets; None where nothing was measured."""

    rows: tuple[str, ...]
    """The base, then the model after each stage."""
    columns: tuple[str, ...]
    """One evaluation set per stage."""
    metrics: tuple[str, ...]
    """The headline metric of each column; "" where the stage has none."""
    values: tuple[tuple[float | None, ...], ...]
    intervals: tuple[tuple[Interval | None, ...], ...]

    @property
    def measured(self) -> int:
        """How many cells hold a value."""
        return sum(value is not None for row in self.values for value in row)


@dataclass(frozen=True)
class _Cell:
    row: int
    column: int
    value: float | None
    interval: Interval | None


def headline_metric(evaluation: Mapping[str, Any]) -> str:
    """The metric by which a stage is judged first; "" when its answers were not scored."""
    named = evaluation.get("headline")
    if named:
        return str(named)
    scored = any(PARSE_RATE in metrics_of(evaluation, when) for when in ("before", "after"))
    return PARSE_RATE if scored else ""


def metrics_of(evaluation: Mapping[str, Any], when: str) -> Mapping[str, float]:
    """Metrics "before" or "after" training; empty when that was not measured."""
    metrics: Mapping[str, float] = (evaluation.get(when) or {}).get("metrics") or {}
    return metrics


def interval_of(evaluation: Mapping[str, Any], when: str, metric: str) -> Interval | None:
    """The confidence interval of a metric, where there is one."""
    return _interval(((evaluation.get(when) or {}).get("intervals") or {}).get(metric))


def retention_matrix(
    records: Sequence[Mapping[str, Any]], base_scores: Sequence[Mapping[str, Any]] = ()
) -> Matrix:
    """The matrix of a curriculum, from its stage records in ascending order.

    `base_scores` are the untouched base's, one entry an evaluation set, where it was scored by itself.

    Stage k fills three places: the row above its own from "before" (what it was trained on, scored on its
    own set), its own row and column from "after", and the columns of earlier stages from "retention".
    """
    stages = [int(record["stage"]) for record in records]
    metrics = tuple(headline_metric(record["evaluation"]) for record in records)
    values: list[list[float | None]] = [[None] * len(stages) for _ in range(len(stages) + 1)]
    intervals: list[list[Interval | None]] = [[None] * len(stages) for _ in range(len(stages) + 1)]
    measured = [
        _cells(record["evaluation"], position, stages, metrics) for position, record in enumerate(records)
    ]
    for cells in (_base_cells(base_scores, stages, metrics), *measured):
        for cell in cells:
            values[cell.row][cell.column] = cell.value
            intervals[cell.row][cell.column] = cell.interval
    return Matrix(
        rows=("base", *(f"after stage {stage}" for stage in stages)),
        columns=tuple(f"set of stage {stage}" for stage in stages),
        metrics=metrics,
        values=tuple(map(tuple, values)),
        intervals=tuple(map(tuple, intervals)),
    )


def _cells(
    evaluation: Mapping[str, Any], position: int, stages: Sequence[int], metrics: Sequence[str]
) -> Iterator[_Cell]:
    """What one stage measured. Row 0 is the base, so a stage's own row is its position + 1."""
    own = metrics[position]
    for row, when in ((position, "before"), (position + 1, "after")):
        value = metrics_of(evaluation, when).get(own)
        yield _Cell(row, position, value, interval_of(evaluation, when, own))
    for entry in evaluation.get("retention") or ():
        if entry["stage"] in stages[:position]:
            column = stages.index(entry["stage"])
            yield _retained(entry, position + 1, column, metrics[column])


def _base_cells(
    entries: Sequence[Mapping[str, Any]], stages: Sequence[int], metrics: Sequence[str]
) -> Iterator[_Cell]:
    for entry in entries:
        if entry["stage"] in stages:
            column = stages.index(entry["stage"])
            yield _retained(entry, 0, column, metrics[column])


def _retained(entry: Mapping[str, Any], row: int, column: int, metric: str) -> _Cell:
    """An entry that is judged by another metric than its column counts only by the column's own."""
    if entry.get("headline", metric) == metric:
        return _Cell(row, column, entry.get("now"), _interval(entry.get("interval")))
    return _Cell(row, column, (entry.get("metrics") or {}).get(metric), None)


def _interval(pair: Sequence[float] | None) -> Interval | None:
    return (pair[0], pair[1]) if pair else None
