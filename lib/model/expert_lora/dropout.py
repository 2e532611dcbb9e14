"""Dropout masks that a backward draws again from a seed instead of keeping them."""

from __future__ import annotations

from collections.abc import Callable

import torch

LEVELS = 1 << 16
Mask = Callable[[torch.Tensor], torch.Tensor]
"""x where it is kept, else 0; not scaled."""


class Dropout:
    """Masks that are the same, in the same order, for the same seed.

    16 bits are drawn an element, four elements from one number of the generator; `keep_rate` is what 16 bits
    make of 1 - p, so that scaling by its inverse keeps the expectation exactly.
    """

    def __init__(self, p: float, seed: int, device: torch.device) -> None:
        self._dropped = round(p * LEVELS)
        self.keep_rate = 1.0 - self._dropped / LEVELS
        self._generator = torch.Generator(device).manual_seed(seed)

    def mask(self, rows: int, width: int) -> Mask | None:
        """The next mask; None keeps everything."""
        if not self._dropped:
            return None
        numbers = torch.empty(-(-rows * width // 4), dtype=torch.int64, device=self._generator.device)
        numbers.random_(-(2**63), None, generator=self._generator)
        draws = numbers.view(torch.int16)[: rows * width].view(rows, width)
        return (draws >= self._dropped - LEVELS // 2).mul


def masked(x: torch.Tensor, mask: Mask | None) -> torch.Tensor:
    return x if mask is None else mask(x)
