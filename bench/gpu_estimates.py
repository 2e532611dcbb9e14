"""The estimates of `--plan` beside what bench/gpu.py measured: memory and time, each within BOUND or not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from lib.training.sizing.cards import Card
from lib.training.sizing.flops import token_flops
from lib.training.sizing.speed import GPU_EFFICIENCY, cpu_speed, gpu_speed, pass_time
from lib.training.sizing.training_shape import TrainingShape

BOUND = 0.15


def time_compared(shape: TrainingShape, tokens_per_second: float, card: Card | None) -> dict[str, Any]:
    """Tokens per second that a plan would state, its error in time, and on a known GPU the share of its
    products that was reached: what GPU_EFFICIENCY should be."""
    if shape.on_gpu and not card:
        return {"time": "not estimated: this GPU is not in lib/training/sizing/cards.py"}
    speed = gpu_speed(card) if card else cpu_speed(os.cpu_count() or 1, 1)
    estimated = shape.tokens / pass_time(shape, shape.tokens, 1.0, speed).seconds
    found = {
        "estimated_tokens_per_second": round(estimated),
        "time_error": round(tokens_per_second / estimated - 1, 3),
    }
    flops = sum(token_flops(shape).values()) * tokens_per_second
    return {**found, "efficiency": round(flops / card.flops, 3)} if card else found


def verdict(steps: Mapping[str, Any]) -> dict[str, Any]:
    """Of all whole steps: the worst error of each estimate, whether it is within BOUND, and the efficiencies
    that were reached."""
    measured = [found for found in steps.values() if isinstance(found, dict)]
    result: dict[str, Any] = {"bound": BOUND}
    for name, key in (("memory", "memory_error"), ("time", "time_error")):
        errors = [found[key] for found in measured if key in found]
        worst = max(errors, key=abs, default=None)
        within = abs(worst) <= BOUND if worst is not None else None
        result[name] = {"worst_error": worst, "within": within}
    reached = [found["efficiency"] for found in measured if "efficiency" in found]
    if reached:
        result["efficiency"] = {"assumed": GPU_EFFICIENCY, "measured": sorted(reached)}
    return result
