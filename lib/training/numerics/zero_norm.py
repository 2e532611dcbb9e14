"""The norm of the gradient inside DeepSpeed's optimizer, which does its step within the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch


class ZeroOptimizer(Protocol):
    """DeepSpeed's optimizer of ZeRO 1 and 2, as far as it is used here."""

    dtype: torch.dtype
    check_grad_overflow: bool
    scaled_global_norm: Callable[..., torch.Tensor]


def watch_zero(optimizer: ZeroOptimizer | Any, refuses: Callable[[torch.Tensor], bool]) -> None:
    """Let `refuses` see the norm before the step. An infinite norm is what DeepSpeed takes for an overflow:
    it leaves out the step, on all processes. Other optimizers are left as they are."""
    norm_of = getattr(optimizer, "scaled_global_norm", None)
    if norm_of is None:
        return
    optimizer.check_grad_overflow |= optimizer.dtype == torch.bfloat16  # else it would not look in bf16

    def scaled_global_norm(*args: Any, **options: Any) -> torch.Tensor:
        norm: torch.Tensor = norm_of(*args, **options)
        return torch.full_like(norm, float("inf")) if refuses(norm) else norm

    optimizer.scaled_global_norm = scaled_global_norm
