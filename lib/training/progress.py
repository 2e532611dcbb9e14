"""What a person sees while a stage trains: one live bar, or plain lines without a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import Progress
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lib.training.durations import readable_duration
from lib.training.progress_bar import progress_bar

# Shown beside the validation loss where they are measured.
SCORES = (
    "gen_parse_rate",
    "gen_leaf_f1",
    "gen_all_fields_exact_match_rate",
    "gen_style_rate",
    "gen_chrf",
)


class ProgressCallback(TrainerCallback):
    """Shows step, loss, learning rate and speed. Only rank 0 shows anything."""

    def __init__(self, seconds_before: Callable[[], float] = lambda: 0.0) -> None:
        """`seconds_before`: what earlier sessions of the run took."""
        self._seconds_before = seconds_before
        self.console = Console(file=sys.stdout, highlight=False)
        self.bar: Progress | None = None
        self.started = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.started = time.monotonic() - self._seconds_before()
        if state.is_world_process_zero and self.console.is_terminal:
            self.bar = progress_bar("training", self.console)
            self.bar.start()
            self.task = self.bar.add_task("", total=state.max_steps, completed=state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self.bar:
            self.bar.update(self.task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        line = self._line(state, logs)
        if line and self.bar:
            self.bar.update(self.task, description=line)
        elif line:
            print(line, flush=True)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self.bar:
            self.bar.stop()

    def _line(self, state: TrainerState, logs: dict[str, float]) -> str:
        step = "" if self.bar else f"  step {state.global_step:>5}/{state.max_steps}  "
        if "eval_loss" in logs:
            scores = "".join(f"  {name} {logs[name]:.3f}" for name in SCORES if name in logs)
            return f"{step}eval_loss {logs['eval_loss']:.4f}{scores}"
        if "loss" not in logs:
            return ""
        elapsed = time.monotonic() - self.started
        left = elapsed / max(state.global_step, 1) * (state.max_steps - state.global_step)
        speed = logs.get("num_tokens", 0) / elapsed
        rate = f"lr {logs.get('learning_rate', 0):.2e}  {speed:,.0f} tokens/s"
        eta = "" if self.bar else f"  {readable_duration(left)} left"
        return f"{step}loss {logs['loss']:.4f}  {rate}{eta}"
