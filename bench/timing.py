"""How several benchmarks measure and what they print: medians with their spread, the load."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def median_and_spread(values: Sequence[float], digits: int = 3) -> dict[str, object]:
    return {
        "median": round(statistics.median(values), digits),
        "spread": [round(min(values), digits), round(max(values), digits)],
    }


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> list[float]:
    """Round by round: what disturbs one round disturbs both."""
    return [their / our for their, our in zip(theirs, ours, strict=True)]


def load() -> list[float]:
    return [round(value, 2) for value in os.getloadavg()]


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Of one call. On a GPU between two events on its stream, once everything before them is done."""
    import torch

    if device.type != "cuda":
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
    torch.cuda.synchronize(device)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    run()
    last.record()
    torch.cuda.synchronize(device)
    return first.elapsed_time(last) / 1000
