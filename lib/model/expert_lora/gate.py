"""What stands between an expert's two projections, with its derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import silu

Backward = Callable[[torch.Tensor], torch.Tensor]
Gate = Callable[[torch.Tensor], tuple[torch.Tensor, Backward]]
"""(rows, gate and up) to (rows, intermediate), and the gradient of the one to that of the other."""


def gate_of(experts: Any) -> Gate:
    """The hand-written SwiGLU where the family has it, else whatever it computes, through autograd."""
    from transformers.activations import SiLUActivation
    from transformers.integrations.moe import _default_apply_gate

    plain = type(experts)._apply_gate is _default_apply_gate
    if plain and isinstance(experts.act_fn, SiLUActivation | torch.nn.SiLU):
        return swiglu
    return through_autograd(experts._apply_gate)


def swiglu(gate_up: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """silu(gate) · up."""
    gate, up = gate_up.chunk(2, dim=-1)
    activated = silu(gate)

    def backward(gradient: torch.Tensor) -> torch.Tensor:
        result = torch.empty_like(gate_up)
        of_gate, of_up = result.chunk(2, dim=-1)
        torch.mul(gradient, activated, out=of_up)
        torch.ops.aten.silu_backward.grad_input(gradient * up, gate, grad_input=of_gate)
        return result

    return activated * up, backward


def through_autograd(apply: Callable[[torch.Tensor], torch.Tensor]) -> Gate:
    def gate(gate_up: torch.Tensor) -> tuple[torch.Tensor, Backward]:
        with torch.enable_grad():
            leaf = gate_up.detach().requires_grad_()
            result = apply(leaf)

        def backward(gradient: torch.Tensor) -> torch.Tensor:
            return torch.autograd.grad(result, leaf, gradient)[0]

        return result.detach(), backward

    return gate
