"""What one token costs to train on, in floating-point operations. Pure: no torch, no settings.

A product of a token with a weight is two operations. The base is frozen: its weights have no gradient, so
there are two products a weight, forward and for the gradient of the inputs, where full fine-tuning has three.
"""

from __future__ import annotations

from dataclasses import replace

from lib.training.sizing.memory import base_bytes
from lib.training.sizing.training_shape import TrainingShape


def token_flops(shape: TrainingShape, learned: float = 1.0) -> dict[str, float]:
    """By what they are for. `shape.length` is the length of rows, `learned` the share of tokens with a loss:
    the vocabulary's head is computed for those alone.

    Attention: a token looks at half of its row on average, two products a pair forward and four backward. The
    adapter's factors are trained, so three products each; those of earlier stages are not. Recomputing is one
    more forward pass of all layers.
    """
    a = shape.architecture
    head = a.vocabulary * a.hidden
    layers = 2.0 * (a.active_parameters - head)
    scores = 2.0 * a.layers * a.heads * a.head_dim * shape.length
    one_token = replace(a, experts=a.experts_per_token) if a.experts else a
    factors = 2.0 * one_token.lora_parameters(shape.rank, shape.targets)
    parts = {
        "forward": layers,
        "back to the inputs": layers,
        "attention": 3 * scores,
        "adapter": (3 + 2 * shape.frozen_adapters) * factors,
        "vocabulary": 4 * head * learned,
        "recomputed": layers + scores + (1 + shape.frozen_adapters) * factors if shape.checkpointing else 0.0,
    }
    return {name: count for name, count in parts.items() if count}


def pass_bytes(shape: TrainingShape) -> int:
    """Weights that one pass reads from memory, however few its tokens are: forward, backward, recomputed."""
    return base_bytes(shape) * (3 if shape.checkpointing else 2)
