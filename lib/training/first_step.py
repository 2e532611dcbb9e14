"""Names and times the first forward pass, the first backward pass and the first optimizer step of a run."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lib.heartbeat import HEART, beat, phase
from lib.training.phase_times import times_line


class FirstStep(TrainerCallback):
    """By hooks that are gone after that step: later ones cost nothing. DeepSpeed does the optimizer's step
    inside the backward call; what torch's own optimizer reports parts the two there as well."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._open = ExitStack()
        self._forward_hooks: list[Any] = []
        self._optimizer_hooks: list[Any] = []
        self._says = False
        self._forwards = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **options: Any
    ) -> None:
        self._says = state.is_world_process_zero
        self._forward_hooks = [
            self._model.register_forward_pre_hook(self._forward_begins),
            self._model.register_forward_hook(self._forward_ends),
        ]
        own = torch_optimizer(options["optimizer"])
        self._optimizer_hooks = [
            own.register_step_pre_hook(self._optimizer_begins),
            own.register_step_post_hook(self._optimizer_ends),
        ]

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Passes of the same step; the first is over."""
        if self._optimizer_hooks:
            self._go_to("")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._optimizer_hooks:  # the step was left out
            self._go_to("")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._forget(self._forward_hooks, self._optimizer_hooks)

    def _forward_begins(self, module: nn.Module, *_: Any) -> None:
        if not module.training:
            return
        self._forwards += 1
        self._go_to("first forward" if self._forwards == 1 else "")

    def _forward_ends(self, module: nn.Module, *_: Any) -> None:
        if module.training and self._forwards == 1:
            self._go_to("first backward")

    def _optimizer_begins(self, *_: Any) -> None:
        self._go_to("first optimizer step")

    def _optimizer_ends(self, *_: Any) -> None:
        self._go_to("")
        self._forget(self._forward_hooks, self._optimizer_hooks)
        if self._says:
            print(times_line(HEART.seconds), flush=True)

    def _go_to(self, name: str) -> None:
        """A GPU is waited for: what it was given has to be done when a phase ends."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._open.close()
        if name:
            self._open.enter_context(phase(name))

    def _forget(self, *hooks: list[Any]) -> None:
        for handles in hooks:
            for handle in handles:
                handle.remove()
            handles.clear()


class Beats(TrainerCallback):
    """Every pass is a sign of life."""

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        beat(f"step {state.global_step + 1}")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        beat(f"step {state.global_step + 1}")

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        beat()


def torch_optimizer(optimizer: Any) -> torch.optim.Optimizer:
    """What does the step inside of the wrappers of accelerate and DeepSpeed."""
    while not isinstance(optimizer, torch.optim.Optimizer) or hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer
