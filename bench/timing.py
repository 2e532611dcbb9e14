"""What several benchmarks print: medians with their spread, and how busy the machine was."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence


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
