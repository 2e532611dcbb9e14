"""Whether everything that is to be trained gets a gradient, seen at the first step."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from lib.settings.errors import Problem
from lib.training.processes.together import ended_together

UP = ".lora_B."
"""The factor to look at: the other one gets no gradient as long as this one is 0, as it is at the start."""
SHOWN = 3
ROUNDING = 1e-7
"""Of the largest gradient: less is what fp32 makes of 0, and Adam would make whole steps of it."""


class FirstGradients:
    """The largest entry of the gradient of every adapter, over the passes of one step; kept on the device."""

    def __init__(self, model: nn.Module) -> None:
        watched = {n: p for n, p in model.named_parameters() if p.requires_grad and UP in n}
        self._largest = {
            name: parameter.new_zeros((), dtype=torch.float32) for name, parameter in watched.items()
        }
        self._hooks: list[Any] = [p.register_hook(partial(self._see, n)) for n, p in watched.items()]

    def _see(self, name: str, gradient: torch.Tensor) -> None:
        largest = torch.linalg.vector_norm(gradient.detach(), ord=float("inf"))
        self._largest[name] = torch.maximum(self._largest[name], largest.float())

    def settle(self, accelerator: Accelerator) -> tuple[str, ...]:
        """Notices of single adapters without a gradient. Called by all processes together, after a step whose
        numbers were well. Raises RunError (see `ended_together`) for a target that has none in any layer."""
        for hook in self._hooks:
            hook.remove()
        if not self._largest:
            return ()
        sums = accelerator.reduce(torch.stack(list(self._largest.values())), "sum").tolist()
        least = ROUNDING * max(sums)
        without = [name for name, value in zip(self._largest, sums, strict=True) if value <= least]
        dead = _whole_targets(list(self._largest), without)
        if dead:
            raise ended_together(_problem(dead), main=accelerator.is_main_process)
        if not without:
            return ()
        named = ", ".join(_place(name) for name in without[:SHOWN])
        return (
            f"[WARNING] {len(without)} of {len(sums)} adapters got no gradient in the first step: {named}",
        )


def _whole_targets(names: list[str], without: list[str]) -> list[str]:
    """Targets, over all layers, of which no adapter has a gradient."""
    of_target: defaultdict[str, set[str]] = defaultdict(set)
    for name in names:
        of_target[_target(name)].add(name)
    return sorted(target for target, members in of_target.items() if members <= set(without))


def _place(name: str) -> str:
    return name.partition(UP)[0].removeprefix("base_model.model.")


def _target(name: str) -> str:
    """The same in every layer: `model.layers.*.mlp.experts`."""
    return re.sub(r"\.\d+(?=\.)", ".*", _place(name))


def _problem(dead: list[str]) -> Problem:
    return Problem(
        where="training, first step",
        key="SFT_LORA_TARGET_MODULES",
        value=f"no gradient for {', '.join(dead)}",
        expected="a gradient for everything that is to be trained",
        remedy="take it out; a router that chooses one expert and gives it the weight 1 has none",
    )
