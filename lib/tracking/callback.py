"""Hands the trainer's logged numbers to the tracker."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lib.tracking.protocol import Tracker


class TrackingCallback(TrainerCallback):
    """One call per logged step, on rank 0 only (other ranks hold a NoTracker)."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if logs:
            self.tracker.metrics(logs, step=state.global_step)
