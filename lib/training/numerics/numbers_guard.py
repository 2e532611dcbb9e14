"""Looks at the numbers of every optimizer step before it changes the weights, and at those of evaluations.

One small tensor, loss and gradient norm, is reduced over the processes and read once a step: all of them
decide the same. transformers' own look at every pass (`logging_nan_inf_filter`), which hides what it finds,
is off in return, so a GPU waits less often than before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lib.settings.errors import Problem
from lib.training.numerics.bad_batches import BAD_BATCHES, DONE
from lib.training.numerics.first_gradients import FirstGradients
from lib.training.numerics.numbers import Numbers, Verdict, notices
from lib.training.numerics.unmeasured import Unmeasured, named, not_finite
from lib.training.numerics.zero_norm import watch_zero
from lib.training.processes.together import ended_together

if TYPE_CHECKING:
    from lib.training.numerics.bad_batches import BadBatches

MEMORY = "numbers"
"""Under this name checkpoints keep the last steps' numbers, in the trainer's state."""


class NumbersGuard(TrainerCallback):
    """Stops, or leaves out the step: no optimizer step is done with its gradient. The step counts all the
    same, and the learning rate goes on as if it had been done."""

    def __init__(self, numbers: Numbers, bad_batches: BadBatches) -> None:
        self.numbers = numbers
        self.bad_batches = bad_batches
        self._gradients: FirstGradients | None = None
        self._gradient_notices: tuple[str, ...] = ()

    def watch(self, trainer: Any) -> None:
        self._trainer = trainer
        trainer.add_callback(self)

    def notices(self, steps: int) -> tuple[str, ...]:
        return (*self._gradient_notices, *notices(self.numbers.memory, steps, BAD_BATCHES))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **options: Any
    ) -> None:
        # Not by ExportableState: transformers would put a new object in the place of this one.
        self.numbers.memory = (state.stateful_callbacks or {}).get(MEMORY, self.numbers.memory)
        state.stateful_callbacks = {**(state.stateful_callbacks or {}), MEMORY: self.numbers.memory}
        if state.is_world_process_zero:
            self.bad_batches.forget_after(state.global_step)
        self._gradients = FirstGradients(self._trainer.model)
        watch_zero(options["optimizer"].optimizer, self._refuses)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Where DeepSpeed left a step out, nobody has moved the schedule on."""
        if self._schedule_waits:
            engine = self._trainer.accelerator.deepspeed_engine_wrapped.engine
            (engine.lr_scheduler or self._trainer.lr_scheduler).step()

    def begin_step(self) -> None:
        self._schedule_waits = False
        self._passes: list[tuple[torch.Tensor, torch.Tensor, int]] = []
        self._logged_before = self._trainer._tr_loss.clone()
        self._judged: Judged | None = None

    def saw(self, loss: torch.Tensor, total: torch.Tensor, labelled: int) -> None:
        """One forward pass: its part of the step's loss, and its own sum over so many labelled tokens."""
        self._passes.append((loss.detach(), total.detach(), labelled))

    def passed(self, norm: torch.Tensor | float | None) -> torch.Tensor | float | None:
        """The gradient norm for the log, None where there is none to log. Called by all processes before the
        optimizer's step, which is made to do nothing where it is left out. Raises to end the run."""
        loss, seen, verdict = self._judged or self._judge(norm)
        skipped = verdict is not None and verdict.action == "skip"
        if verdict:
            self._write_down(verdict, loss, seen)
        if skipped:
            self._leave_out()
            return seen if seen is not None and math.isfinite(seen) else None
        if self._gradients:
            self._gradient_notices = self._gradients.settle(self._trainer.accelerator)
            self._gradients = None
        return norm

    def _judge(self, norm: torch.Tensor | float | None) -> Judged:
        loss = torch.stack([part for part, _, _ in self._passes]).sum().float()
        known = norm is not None
        both = torch.stack([loss, torch.as_tensor(norm if known else 0.0).to(loss)])
        mean, seen = self._trainer.accelerator.reduce(both, "mean").tolist()
        seen = seen if known else None
        self._judged = (mean, seen, self.numbers.judge(self._step, mean, seen))
        return self._judged

    def _refuses(self, norm: torch.Tensor) -> bool:
        """Asked by DeepSpeed's optimizer, which does its step within the backward pass."""
        _, _, verdict = self._judge(norm)
        return verdict is not None and verdict.action != "train"

    def evaluated(self, loss: float, losses: Callable[[], Sequence[float]]) -> None:
        """Judge the loss over the validation rows; `losses` are those of the single rows, in their order.
        Called by all processes together. Raises to end the run."""
        if not not_finite("eval_loss", loss):
            return
        step, main = self._trainer.state.global_step, self._trainer.is_world_process_zero()
        found, action = losses(), self.numbers.on_nan
        rows = self.bad_batches.row_losses(found)
        wrong = Unmeasured.of(f"evaluation at step {step}", "eval_loss", loss, rows)
        assert wrong
        if main:
            self.bad_batches.add_evaluation(step, wrong, action, found)
        if action == "stop":
            raise ended_together(wrong.problem(str(self.bad_batches.path)), main=main)
        self.numbers.unmeasured(step, wrong.reason)
        if main:
            print(wrong.line, flush=True)

    @property
    def _step(self) -> int:
        """Of the step that is being done, from 1."""
        return int(self._trainer.state.global_step) + 1

    def _write_down(self, verdict: Verdict, loss: float, norm: float | None) -> None:
        """In the file, and for the person who watches."""
        own = [(float(total), labelled) for _, total, labelled in self._passes]
        losses = gather_object([own])
        main, where = self._trainer.is_world_process_zero(), ""
        if main:
            rows = self.bad_batches.add(self._step, verdict, loss, norm, losses)
            where = named(rows)
        if verdict.action == "stop":
            problem = _problem(self._step, verdict.reason, where, self.bad_batches.path)
            raise ended_together(problem, main=main)
        if main:
            said = f"[WARNING] step {self._step}: {verdict.reason}; {DONE[verdict.action]}; {where}"
            print(said, flush=True)

    def _leave_out(self) -> None:
        """No gradient, no optimizer step. DeepSpeed has left it out itself."""
        self._trainer.model.zero_grad()
        self._trainer._tr_loss.copy_(self._logged_before)
        self._schedule_waits = self._trainer.is_deepspeed_enabled


Judged = tuple[float, float | None, Verdict | None]
"""Mean loss of the step, norm of its gradient, and what is wrong."""


def _problem(step: int, reason: str, rows: str, path: Path) -> Problem:
    return Problem(
        where=f"step {step}: {reason}",
        value=f"{rows} (all in {path})",
        expected="finite numbers; the weights were not changed by this step, checkpoints are as they were",
        remedy="look at these rows, lower SFT_LR, or leave such steps out with SFT_ON_NAN=skip "
        "(spikes: SFT_ON_SPIKE=skip)",
    )
