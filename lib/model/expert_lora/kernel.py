"""The forward and the hand-written backward of a block of experts under LoRA.

An expert computes down(gate(gate_up(x))), either projection being y = xW + s·(drop(x)Aᵀ)B, with xA₀ᵀB₀ added
where earlier stages left factors beside W. W, A₀ and B₀ are frozen: neither W + sBA nor a gradient of the
size of W is ever formed. Kept for the backward are the input, the output of gate_up and the two low-rank
results; the rest is computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from lib.model.expert_lora.dropout import Dropout, masked
from lib.model.expert_lora.gate import Gate
from lib.model.expert_lora.halves import in_halves
from lib.model.expert_lora.products import Products
from lib.model.expert_lora.projection import FrozenProjection, LoraProjection
from lib.model.expert_lora.routing import Routing

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class ExpertCall:
    """What one call of a block computes with, besides the tensors that get a gradient."""

    gate_up: FrozenProjection
    down: FrozenProjection
    gate: Gate
    routing: Routing
    products: Products
    dropout: float
    seed: int

    def masks(self, device: torch.device, half: int = 0) -> Dropout:
        """Each half of the rows draws its own."""
        return Dropout(self.dropout, self.seed ^ half, device)

    def projections(self, factors: Tensors, keep_rate: float) -> tuple[LoraProjection, LoraProjection]:
        return (
            LoraProjection(self.gate_up, factors[:2], self.products, keep_rate),
            LoraProjection(self.down, factors[2:], self.products, keep_rate),
        )

    def by_row(self, weights: torch.Tensor) -> torch.Tensor:
        """(rows, 1): the weight of every row, 0 for padding, in the dtype that is computed in."""
        flat = weights.reshape(-1).to(self.gate_up.weight.dtype)
        return torch.cat([flat, flat.new_zeros(1)]).index_select(0, self.routing.slots).unsqueeze(1)


class SplitExperts(torch.autograd.Function):
    """(hidden_states, top_k_weights, and where some are trained A and B of gate_up, A and B of down) to
    hidden_states.

    Frozen weights, routing and seed are attributes, not saved tensors: nothing of the size of the weights
    is kept, and under checkpointing routing and seed stay those of the first forward.
    """

    @staticmethod
    def forward(
        ctx: Any, call: ExpertCall, hidden: torch.Tensor, weights: torch.Tensor, *factors: torch.Tensor
    ) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            out, kept = _forward(call, hidden, weights, factors)
        ctx.call, ctx.trained = call, len(factors)
        ctx.save_for_backward(hidden, weights, *factors, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weights, *rest = ctx.saved_tensors
        factors, kept = tuple(rest[: ctx.trained]), rest[ctx.trained :]
        with torch.autocast(gradient.device.type, enabled=False):
            return (None, *_backward(ctx.call, gradient, hidden, weights, factors, kept))


def _forward(
    call: ExpertCall, hidden: torch.Tensor, weights: torch.Tensor, factors: Tensors
) -> tuple[torch.Tensor, Tensors]:
    products, keep_rate = call.products, call.masks(hidden.device).keep_rate
    gate_up, down = call.projections(factors, keep_rate)
    inputs = hidden.to(call.gate_up.weight.dtype)
    rows = len(call.routing.slots)
    kept = tuple(inputs.new_empty(rows, width) for width in (gate_up.outputs, gate_up.rank, down.rank))

    def sums(half: int, blocks: Sequence[Any]) -> torch.Tensor:
        masks, total = call.masks(hidden.device, half), torch.zeros_like(hidden, dtype=torch.float32)
        for block, tokens, weight, pre, low_1, low_2, first, second in blocks:
            x = inputs.index_select(0, tokens)
            keep_x, keep_h = masks.mask(len(x), gate_up.inputs), masks.mask(len(x), down.inputs)
            first(x, masked(x, keep_x), low_1, out=pre)
            h, _ = call.gate(pre)
            h *= weight  # both products behind it are linear, and h is narrower than their result
            y = torch.empty_like(x)
            second(h, masked(h, keep_h), low_2, y, weight)
            block.sum_by_token(total, tokens, y)
        return total

    by_block = map(products.rows, (call.routing.tokens, call.by_row(weights), *kept))
    blocks = zip(products.blocks, *by_block, gate_up.blocks(), down.blocks(), strict=True)
    return _added(in_halves(sums, list(blocks))).to(hidden.dtype), kept


def _added(sums: Sequence[torch.Tensor]) -> torch.Tensor:
    """Without a copy where there is one only."""
    total = sums[0]
    for other in sums[1:]:
        total += other
    return total


def _backward(
    call: ExpertCall,
    gradient: torch.Tensor,
    hidden: torch.Tensor,
    weights: torch.Tensor,
    factors: Tensors,
    kept: list[torch.Tensor],
) -> Tensors:
    """Gradients of hidden states, weights and factors."""
    products, keep_rate = call.products, call.masks(hidden.device).keep_rate
    gate_up, down = call.projections(factors, keep_rate)
    inputs, gradients = (tensor.to(call.gate_up.weight.dtype) for tensor in (hidden, gradient))
    row_weights = call.by_row(weights)
    to_weights = torch.empty_like(row_weights, dtype=torch.float32)

    def sums(half: int, blocks: Sequence[Any]) -> torch.Tensor:
        masks, total = call.masks(hidden.device, half), torch.zeros_like(hidden, dtype=torch.float32)
        for block, tokens, weight, to_weight, pre, low_1, low_2, first, second in blocks:
            x, to_y = inputs.index_select(0, tokens), gradients.index_select(0, tokens)
            keep_x, keep_h = masks.mask(len(x), gate_up.inputs), masks.mask(len(x), down.inputs)
            h, gate_back = call.gate(pre)

            to_h = second.back(to_y, low_2, masked(h * weight, keep_h), keep_h)
            # The output of an expert was not kept: its product with the gradient is that of what made it.
            torch.sum(h * to_h, 1, keepdim=True, dtype=torch.float32, out=to_weight)
            second.add_along_bias(to_weight, to_y)
            to_pre = gate_back(to_h.mul_(weight))
            to_x = first.back(to_pre, low_1, masked(x, keep_x), keep_x)
            block.sum_by_token(total, tokens, to_x)
        return total

    by_block = map(products.rows, (call.routing.tokens, row_weights, to_weights, *kept))
    back = (gate_up.backward_blocks(), down.backward_blocks())
    blocks = zip(products.blocks, *by_block, *back, strict=True)
    total = _added(in_halves(sums, list(blocks)))
    return (
        total.to(hidden.dtype),
        call.routing.by_choice(to_weights).to(weights.dtype),
        *gate_up.gradients(),
        *down.gradients(),
    )
