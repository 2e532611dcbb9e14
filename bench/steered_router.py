"""A tiny Qwen3-MoE whose router can be told by the tokens of a row which experts it takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

STEERED = 0
"""The dimension of the residual stream that the router looks at."""


def steer(model: Any, second_half: Iterable[int]) -> None:
    """Tokens of `second_half` go to the second half of the experts in every layer, all others to the first.

    One dimension of the residual stream carries the sign that the embedding gave it and nothing writes to it.
    """
    strength = 50 * model.config.initializer_range
    with torch.no_grad():
        embedding = model.get_input_embeddings().weight
        embedding[:, STEERED] = strength
        embedding[list(second_half), STEERED] = -strength
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[STEERED] = 0
            layer.mlp.experts.down_proj[:, STEERED] = 0
            experts = layer.mlp.gate.weight.shape[0]
            layer.mlp.gate.weight[: experts // 2, STEERED] = 10.0
            layer.mlp.gate.weight[experts // 2 :, STEERED] = -10.0
