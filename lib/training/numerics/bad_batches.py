"""`bad_batches.jsonl` in a stage's folder: the steps and evaluations whose numbers went wrong, each with its
rows. Rank 0 writes it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.files import write_text

if TYPE_CHECKING:
    from lib.data.chat.encoded import EncodedRow
    from lib.data.prepare import PreparedData
    from lib.training.numerics.numbers import Action, Verdict
    from lib.training.numerics.unmeasured import RowLoss, Unmeasured

BAD_BATCHES = "bad_batches.jsonl"
DONE = {"stop": "stopped", "skip": "left out", "train": "trained on"}
PassLosses = Sequence[tuple[float, int]]
"""Summed loss and labelled tokens of each forward pass of a step, on one process."""


class BadBatches:
    """Looks up and writes down what a step was on."""

    def __init__(self, path: Path, data: PreparedData, validation: Sequence[EncodedRow] = ()) -> None:
        self.path = path
        self._data = data
        self._validation = validation

    def forget_after(self, step: int) -> None:
        """Lines of steps that an earlier run took and that will be taken again."""
        if self.path.exists():
            kept = [
                line for line in self.path.read_text(encoding="utf-8").splitlines() if _step(line) <= step
            ]
            write_text(self.path, "".join(f"{line}\n" for line in kept))
            if not kept:
                self.path.unlink()

    def add(
        self, step: int, verdict: Verdict, loss: float, norm: float | None, losses: Sequence[PassLosses]
    ) -> list[str]:
        """Write one line; the ids of the rows, those of the passes with the highest loss first. `losses`: one
        entry per process."""
        passes = self._passes(step, losses)
        entry = {
            "step": step,
            "reason": verdict.reason,
            "done": DONE[verdict.action],
            "loss": _json_number(loss),
            "grad_norm": _json_number(norm),
            "passes": passes,
        }
        self._write(entry)
        worst = sorted(passes, key=lambda found: _height(found["loss"]), reverse=True)
        return list(dict.fromkeys(row["row"] for found in worst for row in found["rows"]))

    def row_losses(self, losses: Sequence[float]) -> list[RowLoss]:
        """Those of the validation rows, in their order, with the ids."""
        return [(row.row_id, loss) for row, loss in zip(self._validation, losses, strict=True)]

    def add_evaluation(self, step: int, wrong: Unmeasured, action: Action, losses: Sequence[float]) -> None:
        """One line with the rows that spoilt the evaluation at this step, each with its own loss."""
        rows = [
            {**_described(row), "loss": _json_number(loss)}
            for row, loss in zip(self._validation, losses, strict=True)
            if not math.isfinite(loss)
        ]
        self._write({"step": step, "reason": wrong.reason, "done": DONE[action], "evaluation": rows})

    def _write(self, entry: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def _passes(self, step: int, losses: Sequence[PassLosses]) -> list[dict[str, Any]]:
        """`loss` is the mean over the labelled tokens of the pass."""
        found = []
        for process, number, rows in self._data.schedule.passes(step):
            total, labelled = losses[process][number]
            found.append(
                {
                    "process": process,
                    "pass": number,
                    "loss": _json_number(total / max(labelled, 1)),
                    "rows": [_described(self._data.train[row]) for row in rows],
                }
            )
        return found


def _described(row: EncodedRow) -> dict[str, Any]:
    return {
        "row": row.row_id,
        "labels": {label.field: label.value for label in row.labels},
        "tokens": len(row.input_ids),
        "learned": row.supervised_tokens,
    }


def _step(line: str) -> float:
    """Of a line that was cut off by the end of a process: after all others."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _json_number(value: float | None) -> float | str | None:
    """JSON knows neither nan nor inf: they are text."""
    return value if value is None or math.isfinite(value) else str(value)


def _height(loss: float | str) -> float:
    return loss if isinstance(loss, float) else math.inf
