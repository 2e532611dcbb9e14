"""Attention over rows that stand one after another in a sequence, each for itself, without a dense mask.

transformers recognises such a batch by position_ids that restart while there is no attention mask, and gives
SDPA a mask of L×L entries over the whole sequence. Registered here is an implementation that computes row by
row instead: Σ len² products for L², and causality for nothing, since a mask keeps SDPA from skipping
what lies ahead. Measured against the alternatives in docs/log.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

IMPLEMENTATION = "sdpa_by_row"
"""Our name among transformers' attention implementations (`set_attn_implementation`)."""


@dataclass(frozen=True)
class RowMask:
    """Stands where models hand the attention mask on: which rows the one sequence of the batch holds."""

    lengths: list[int]
    """Tokens of each row."""
    within: list[torch.Tensor | None]
    """Per row its own mask (1, 1, length, length), True where it attends; None: causal, nothing else."""


def use_attention_by_row(model: PreTrainedModel) -> None:
    """Let a model that attends through SDPA attend row by row wherever a sequence holds several rows.

    Every other batch (padded, one row, generation with a cache) takes transformers' own path as before.
    """
    AttentionInterface.register(IMPLEMENTATION, attention_by_row)
    AttentionMaskInterface.register(IMPLEMENTATION, row_mask)
    model.set_attn_implementation(IMPLEMENTATION)


def row_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    mask_function: Callable[..., torch.Tensor],
    attention_mask: torch.Tensor | None = None,
    allow_is_causal_skip: bool = True,
    local_size: int | None = None,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **options: Any,
) -> RowMask | torch.Tensor | None:
    """What transformers calls once per forward for each kind of mask. For anything but one sequence of
    several rows it answers as SDPA's own.

    `mask_function` (batch, head, query, key → whether it attends) knows where rows begin: there a token does
    not attend to the one before. So nothing but neighbours has to be asked, and chunked attention comes out
    as rows of one chunk. A function that looks ahead, or one of unknown form, gets the dense mask.
    """
    several_rows = not allow_is_causal_skip and attention_mask is None and not use_vmap
    if several_rows and batch_size == 1 and q_length == kv_length > 1:
        before = torch.arange(q_length - 1, device=device)
        zero = torch.zeros_like(before)
        starts = ~mask_function(zero, zero, before + 1, before)
        looks_ahead = mask_function(zero, zero, before, before + 1)
        if starts.any() and not looks_ahead.any():
            edges = [0, *(starts.nonzero().flatten() + 1).tolist(), q_length]
            lengths = [last - first for first, last in pairwise(edges)]
            return RowMask(lengths, [_within(length, local_size, device) for length in lengths])
    return sdpa_mask(
        batch_size=batch_size,
        q_length=q_length,
        kv_length=kv_length,
        mask_function=mask_function,
        attention_mask=attention_mask,
        allow_is_causal_skip=allow_is_causal_skip,
        local_size=local_size,
        use_vmap=use_vmap,
        device=device,
        **options,
    )


def _within(length: int, window: int | None, device: torch.device | str) -> torch.Tensor | None:
    """The mask of a row under sliding-window attention; none is needed where the window holds the row."""
    if window is None or length <= window:
        return None
    position = torch.arange(length, device=device)
    distance = position[:, None] - position[None, :]
    return ((distance >= 0) & (distance < window))[None, None]


def attention_by_row(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: RowMask | torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """The implementation that transformers calls: query (batch, heads, tokens, head size), key and value with
    as many or fewer heads; the output is (batch, tokens, heads, head size)."""
    if not isinstance(attention_mask, RowMask):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    # split and cat, rather than slices: their backward writes each gradient once.
    rows = zip(
        *(tensor.split(attention_mask.lengths, dim=2) for tensor in (query, key, value)),
        attention_mask.within,
        strict=True,
    )
    outputs = [sdpa_attention_forward(module, q, k, v, mask, **options)[0] for q, k, v, mask in rows]
    return torch.cat(outputs, dim=1), None
