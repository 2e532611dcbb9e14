"""Cross entropy of hidden states under a vocabulary head, in chunks of tokens: never all logits at once.

Where the head is frozen, as under LoRA, one pass over the chunks computes the losses and the gradient of the
hidden states: two matrix products a chunk, the same two as with full logits. Products run in the dtype of the
head, the softmax in fp32; losses and gradient then are those of full logits, up to the order of summation.

Peak memory with N tokens, V entries, hidden size H and b bytes a weight, s = 4 (12 with a softcap):
min(N · V · b, CHUNK_BYTES) + max(V, STRIP_BYTES / 4) · s + N · H · b. Where the head is trained a chunk holds
several fp32 copies of a quarter as many rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lib.model.output_head import OutputHead

# Logits of a chunk: enough rows that reading the head's weights does not bound the product (docs/log.md).
CHUNK_BYTES = {"cpu": 96 * 2**20, "cuda": 512 * 2**20}
# fp32 softmax within a chunk: what stays in the cache of a CPU; on a GPU few launches.
STRIP_BYTES = {"cpu": 4 * 2**20, "cuda": 128 * 2**20}


def head_losses(
    hidden: torch.Tensor, head: OutputHead, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(losses, correct) of N tokens from `hidden` (N, H) and token ids `targets` (N,).

    Losses are in nats, fp32 (N,); `correct` (N,) says where no logit is above the target's.
    """
    linear = head.frozen_linear
    if linear is not None:
        losses, correct = FrozenHeadLosses.apply(hidden, linear, head, targets)
        return losses, correct
    return _trained_head_losses(hidden, head, targets)


class FrozenHeadLosses(torch.autograd.Function):
    """The gradient is formed together with the losses, for an upstream gradient of 1, and scaled later."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, linear: nn.Linear, head: OutputHead, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        states = hidden.to(linear.weight.dtype)
        gradient = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        with torch.autocast(hidden.device.type, enabled=False):
            losses, correct = _frozen_head_losses(states, linear, head, targets, gradient)
        ctx.save_for_backward(gradient)
        ctx.dtype = hidden.dtype
        ctx.mark_non_differentiable(correct)
        return losses, correct

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor, _: Any) -> tuple[torch.Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * upstream[:, None]).to(ctx.dtype), None, None, None


def _frozen_head_losses(
    states: torch.Tensor,
    linear: nn.Linear,
    head: OutputHead,
    targets: torch.Tensor,
    gradient: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses and hits of all rows; `gradient` (N, H), where there is one, is filled."""
    weight, bias = linear.weight, linear.bias
    count, vocabulary = len(targets), weight.shape[0]
    losses = torch.empty(count, dtype=torch.float32, device=states.device)
    correct = torch.empty(count, dtype=torch.bool, device=states.device)
    rows = _rows_of(vocabulary * weight.element_size(), CHUNK_BYTES, states.device)
    strip = min(_rows_of(vocabulary * 4, STRIP_BYTES, states.device), rows, count)
    logits = torch.empty(min(rows, count), vocabulary, dtype=weight.dtype, device=states.device)
    softmax = torch.empty(strip, vocabulary, dtype=torch.float32, device=states.device)
    for chunk in _slices(0, count, rows):
        raw = logits[: chunk.stop - chunk.start]
        torch.mm(states[chunk], weight.t(), out=raw)
        if bias is not None:
            raw += bias
        for part in _slices(chunk.start, chunk.stop, strip):
            within = raw[part.start - chunk.start : part.stop - chunk.start]
            losses[part], correct[part] = _softmax_losses(
                within, softmax[: part.stop - part.start], targets[part, None], head, gradient is not None
            )
        if gradient is not None:
            torch.mm(raw, weight, out=gradient[chunk])
    return losses, correct


def _softmax_losses(
    logits: torch.Tensor, softmax: torch.Tensor, targets: torch.Tensor, head: OutputHead, with_gradient: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses and hits of a few rows; `logits` become their own gradient, softmax minus the target's 1."""
    final = head.transform(logits.float()) if head.transforms else logits
    torch.log_softmax(final, dim=-1, dtype=torch.float32, out=softmax)
    chosen = softmax.gather(1, targets)
    correct = chosen[:, 0] == softmax.amax(-1)
    if with_gradient:
        softmax.exp_().scatter_add_(1, targets, torch.full_like(chosen, -1.0))
        if head.transforms:
            softmax.mul_(head.slope(final))
        logits.copy_(softmax)
    return -chosen[:, 0], correct


def _trained_head_losses(
    hidden: torch.Tensor, head: OutputHead, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """By the head's own forward (with an adapter on it, say); the backward computes each chunk again."""

    def chunk_losses(states: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        log_probabilities = head.transform(head.layer(states).float()).log_softmax(-1)
        chosen = log_probabilities.gather(1, wanted[:, None])[:, 0]
        return -chosen, chosen.detach() == log_probabilities.detach().amax(-1)

    rows = max(_rows_of(head.vocabulary * 4, CHUNK_BYTES, hidden.device) // 4, 1)
    parts = [
        checkpoint(chunk_losses, hidden[chunk], targets[chunk], use_reentrant=False)
        for chunk in _slices(0, len(targets), rows)
    ] or [chunk_losses(hidden, targets)]
    losses, correct = zip(*parts, strict=True)
    return torch.cat(losses), torch.cat(correct)


def _rows_of(row_bytes: int, budget: dict[str, int], device: torch.device) -> int:
    return max(budget["cpu" if device.type == "cpu" else "cuda"] // row_bytes, 1)


def _slices(start: int, stop: int, longest: int) -> Iterator[slice]:
    """As few slices as possible, of even length: a short last one would read all weights for a few rows."""
    count = -(-(stop - start) // longest)
    for number in range(count):
        yield slice(start + (stop - start) * number // count, start + (stop - start) * (number + 1) // count)
