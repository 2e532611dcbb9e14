"""What the last model of a curriculum still knows of what an earlier one knew, and how much of the next stage
should be earlier rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lib.evaluation.retention import Interval, Matrix, retention_matrix

SMALLEST_REPLAY, LARGEST_REPLAY = 0.05, 0.3


@dataclass(frozen=True)
class Kept:
    """An earlier stage's evaluation set: the best score that any model since then had on it, and the last."""

    stage: int
    metric: str
    best: float
    best_model: str
    """`after stage 2`."""
    now: float
    interval: Interval

    @property
    def forgotten(self) -> bool:
        """Whether the best score lies above the whole interval of the last."""
        return self.interval[1] < self.best

    @property
    def lost(self) -> float:
        """Part of the best score that is gone; 0 where that cannot be told from chance."""
        return 1 - self.now / self.best if self.forgotten else 0.0


def kept_scores(records: Sequence[Mapping[str, Any]]) -> tuple[Kept, ...]:
    """One entry per earlier stage whose set the last model was asked; `records` in ascending order."""
    matrix = retention_matrix(records)
    entries = (_kept(matrix, column, int(record["stage"])) for column, record in enumerate(records[:-1]))
    return tuple(entry for entry in entries if entry is not None)


def replay_share(kept: Sequence[Kept], present: float) -> float:
    """What to replay: the share that was not enough, and the part that was lost; `present` without a loss."""
    lost = max((entry.lost for entry in kept), default=0.0)
    wanted = min(max(present + lost, SMALLEST_REPLAY), LARGEST_REPLAY)
    return round(max(present, wanted), 2) if lost else present


def _kept(matrix: Matrix, column: int, stage: int) -> Kept | None:
    now, interval = matrix.values[-1][column], matrix.intervals[-1][column]
    # Row 0 is the base: the stage's own model stands in row column + 1.
    since = [
        (value, matrix.rows[row])
        for row in range(column + 1, len(matrix.rows) - 1)
        if (value := matrix.values[row][column]) is not None
    ]
    if now is None or interval is None or not since or max(since)[0] <= 0:
        return None
    best, model = max(since)
    return Kept(stage, matrix.metrics[column], best, model, now, interval)
