"""Which steps have gone wrong, judged by two numbers: the loss of the whole batch and the norm of its
gradient. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from lib.settings import TrainingSettings
from lib.training.numerics.unmeasured import not_finite

Action = Literal["stop", "skip", "train"]

WINDOW = 64
"""Steps that a spike is compared with."""
FIRST = 16
"""So many steps must be known before one is called a spike."""
MOST_IN_A_ROW = 10
"""Steps left out one after another; one more, and leaving out does not help."""
NORMAL = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
LEAST_SPREAD = 0.05
"""Of the median: where all steps are alike, the next one may still differ a little."""
LEAST_LOSS_SPREAD = 0.05
"""In nats: no alarm over losses that are all next to nothing."""


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a step, and what is done about it. `train`: it is said, and trained on."""

    reason: str
    action: Action


class Numbers:
    """The policy of a stage, and the numbers of its last steps.

    A spike is a loss or a gradient norm above m + k·s of the last 64 steps: m their median, k
    SFT_SPIKE_DEVIATIONS, s = 1.4826 · the median distance from m, and at least 5 % of m (of a loss, 0.05
    nats). A norm that need not be clipped (SFT_MAX_GRAD_NORM) is none. Spikes enter the window as well, so
    that a run which has moved to another level is not called a spike for ever. Other steps that went wrong
    do not.
    """

    def __init__(self, training: TrainingSettings) -> None:
        self.on_nan, self.on_spike = training.on_nan, training.on_spike
        self.deviations, self.clipped_above = training.spike_deviations, training.max_grad_norm
        self.memory: dict[str, Any] = {"losses": [], "norms": [], "in_a_row": 0, "bad": []}
        """Plain JSON, kept in checkpoints: a run that was interrupted goes on judging as it did. The counts
        are of steps and of those left out, since the last log and in all."""
        self.memory |= {"since_log": [0, 0], "in_all": [0, 0], "unmeasured": []}

    def judge(self, step: int, loss: float, norm: float | None) -> Verdict | None:
        """None where all is well. `norm` is None where nobody knows it."""
        verdict = self._wrong(loss, norm) or self._spike(loss, norm)
        skipped = verdict is not None and verdict.action == "skip"
        self.memory["in_a_row"] = self.memory["in_a_row"] + 1 if skipped else 0
        for count in (self.memory["since_log"], self.memory["in_all"]):
            count[:] = count[0] + 1, count[1] + skipped
        if verdict and self.memory["in_a_row"] > MOST_IN_A_ROW:
            verdict = Verdict(
                f"{verdict.reason}, after {MOST_IN_A_ROW} steps in a row that were left out", "stop"
            )
        if verdict:
            self.memory["bad"].append({"step": step, "reason": verdict.reason, "action": verdict.action})
        return verdict

    def unmeasured(self, step: int, reason: str) -> None:
        """An evaluation at this step did not give a score."""
        self.memory.setdefault("unmeasured", []).append({"step": step, "reason": reason})

    def fair(self, logs: dict[str, float]) -> dict[str, float]:
        """The means of a log over the steps that were done, where the trainer has divided by all of them.
        There is no loss where none was done."""
        for name, (steps, skipped) in (
            ("loss", self.memory["since_log"]),
            ("train_loss", self.memory["in_all"]),
        ):
            if name in logs and skipped:
                mean = logs[name] * steps / max(steps - skipped, 1)
                logs = {**logs, name: mean, "skipped_steps": self.memory["in_all"][1]}
        if "loss" in logs:
            steps, skipped = self.memory["since_log"]
            self.memory["since_log"] = [0, 0]
            if skipped == steps > 0:
                del logs["loss"]
        return logs

    def _wrong(self, loss: float, norm: float | None) -> Verdict | None:
        for name, value in (("loss", loss), ("gradient", norm)):
            if value is None:
                continue
            if reason := not_finite(name, value):
                return Verdict(reason, self.on_nan)
            if value == 0:
                return Verdict(f"the {name} is exactly 0: nothing is learned", self.on_nan)
        return None

    def _spike(self, loss: float, norm: float | None) -> Verdict | None:
        found = None
        for name, value, least_spread, least in (
            ("losses", loss, LEAST_LOSS_SPREAD, 0.0),
            ("norms", norm, 0.0, self.clipped_above),
        ):
            if value is None:
                continue
            known = self.memory[name]
            limit = math.inf
            if len(known) >= FIRST:
                limit = max(spike_limit(known, self.deviations, least_spread), least)
            if value > limit and found is None:
                what = "loss" if name == "losses" else "gradient norm"
                found = (
                    f"the {what} of {value:.4g} is a spike (limit {limit:.4g}, median {median(known):.4g})"
                )
            known.append(value)
            del known[:-WINDOW]
        if found is None or self.on_spike == "off":
            return None
        return Verdict(found, "train" if self.on_spike == "warn" else self.on_spike)


def spike_limit(known: Sequence[float], deviations: float, least_spread: float) -> float:
    """Above this a value is a spike among `known`. Median and median absolute deviation (Hampel 1974): up to
    half of the values may be anything without moving them far."""
    middle = median(known)
    spread = NORMAL * median(abs(value - middle) for value in known)
    return middle + deviations * max(spread, LEAST_SPREAD * middle, least_spread)


def notices(memory: Mapping[str, Any], steps: int, file: str) -> tuple[str, ...]:
    """What the record and the report say of the steps and evaluations that went wrong."""
    lines = []
    for action, done in (("skip", "left out"), ("train", "trained on")):
        found = [entry for entry in memory["bad"] if entry["action"] == action]
        if found:
            lines.append(
                f"[WARNING] {len(found)} of {steps} steps were {done}: {_listed(found)} (rows in {file})"
            )
    if unmeasured := memory.get("unmeasured"):
        lines.append(
            f"[WARNING] evaluations without a score, which is never the best: {len(unmeasured)}, "
            f"{_listed(unmeasured)} (rows of wrong losses in {file})"
        )
    return tuple(lines)


def _listed(found: Sequence[Mapping[str, Any]]) -> str:
    first = "; ".join(f"step {entry['step']}: {entry['reason']}" for entry in found[:3])
    return first + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
