"""The loss of an evaluation that is not a number or infinite: the rows that it comes of, and what is done
(SFT_ON_NAN). It never becomes a score: it is named instead. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lib.settings.errors import Problem

SHOWN_ROWS = 4
EVALUATED = "eval_runtime"
"""In the trainer's log of every evaluation, whatever it measured."""
RowLoss = tuple[str, float]
"""Id of a row and its own loss."""


def not_finite(name: str, value: float) -> str:
    """`the loss is infinite`; empty for a finite value."""
    if math.isfinite(value):
        return ""
    return f"the {name} is {'infinite' if math.isinf(value) else 'not a number'}"


@dataclass(frozen=True)
class Unmeasured:
    where: str
    """`evaluation at step 4`"""
    reason: str
    rows: tuple[str, ...]
    """Whose own loss is wrong."""

    @classmethod
    def of(cls, where: str, name: str, value: float, losses: Sequence[RowLoss]) -> Unmeasured | None:
        """None where `value`, the loss over all rows, is finite."""
        reason = not_finite(name, value)
        wrong = tuple(row for row, loss in losses if not math.isfinite(loss))
        return cls(where, reason, wrong) if reason else None

    @property
    def line(self) -> str:
        """What is said where it is left out."""
        return f"[WARNING] {self.where}: {self.reason}; left out, it is no score; {named(self.rows)}"

    def problem(self, file: str = "") -> Problem:
        """What ends the run; `file` has all rows."""
        return Problem(
            where=f"{self.where}: {self.reason}",
            value=named(self.rows) + (f" (all in {file})" if file else ""),
            expected="a finite loss; checkpoints are as they were",
            remedy="look at these rows, lower SFT_LR, or go on without this score with SFT_ON_NAN=skip",
        )


def named(rows: Sequence[str]) -> str:
    """`rows a#1, a#2, …`"""
    return f"rows {', '.join(rows[:SHOWN_ROWS])}{', …' if len(rows) > SHOWN_ROWS else ''}"
