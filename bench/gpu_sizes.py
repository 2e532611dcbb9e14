"""What bench/gpu.py measures: the dimensions of Qwen3-30B-A3B, and small ones for a test of the script."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lib.model.architecture import Architecture

# https://huggingface.co/Qwen/Qwen3-30B-A3B config.json
QWEN3_30B = Architecture(
    family="qwen3_moe", hidden=2048, layers=48, heads=32, kv_heads=4, head_dim=128, intermediate=768,
    experts=128, experts_per_token=8, vocabulary=151_936, tied=False, bytes_per_weight=2,
)  # fmt: skip
SMALL = replace(
    QWEN3_30B, hidden=64, layers=3, heads=4, kv_heads=2, head_dim=16, intermediate=32, experts=8,
    experts_per_token=2, vocabulary=512,
)  # fmt: skip
RANK = 8
GPU_SHARE = 0.92  # of the device's memory, what a part of this script may fill


@dataclass(frozen=True)
class Sizes:
    """What is measured, and how often."""

    model: Architecture
    block_tokens: tuple[int, ...]
    loss_tokens: int
    step_lengths: tuple[int, ...]
    """Tokens of one packed row; every pass has STEP_TOKENS of them."""
    step_tokens: int
    few_layers: int
    rounds: int


FULL = Sizes(QWEN3_30B, (512, 4096, 16_384), 8192, (1024, 2048, 4096), 8192, 4, 9)
FAST = Sizes(SMALL, (64,), 128, (32, 64), 128, 1, 2)
