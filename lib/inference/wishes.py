"""What the command line says about answers. Free of torch."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass

from lib.evaluation.decoding import GREEDY, Sampling
from lib.inference.source import Habits


@dataclass(frozen=True)
class Wishes:
    """What is None or 0 is left to the model's habits."""

    sampling: Sampling = GREEDY
    max_new_tokens: int | None = None
    seed: int = 0
    system: str = ""
    batch_size: int | None = None
    merged: bool = True
    """Whether the adapter is added to the weights, or computed beside them."""

    @classmethod
    def of(cls, options: argparse.Namespace) -> Wishes:
        sampling = Sampling(options.temperature, options.top_p, options.top_k, options.repetition_penalty)
        return cls(
            sampling,
            options.max_new_tokens,
            options.seed,
            options.system or "",
            options.batch_size,
            options.merged,
        )

    def decisive(self, habits: Habits) -> dict[str, str]:
        """What other answers would follow from. How batches and merged adapters round does not count."""
        chosen = {
            **asdict(self.sampling),
            "seed": self.seed if self.sampling.temperature else None,
            "max new tokens": self.max_new_tokens or habits.max_new_tokens,
        }
        return {"system prompt": self.system, **{name: str(value) for name, value in chosen.items()}}
