"""NEFTune: uniform noise on the embeddings while training, for each row by its own length."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import TrainerCallback


class EmbeddingNoise(TrainerCallback):
    """Noise of at most alpha/√(tokens of the row × hidden size) on each entry (arXiv:2310.05914).

    transformers' own takes the width of the batch for the row's length: several rows in one sequence would
    get noise that is weaker by the root of their number, and a row would get less beside a longer one.
    """

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha
        self.tokens: torch.Tensor | None = None
        """Of the row that each token belongs to; 1 × tokens or rows × 1."""
        self.hooks: list[Any] = []

    def on_train_begin(self, *_: Any, model: PeftModel, **__: Any) -> None:
        backbone = model.get_base_model().base_model
        self.hooks = [
            backbone.register_forward_pre_hook(self._see_rows, with_kwargs=True),
            backbone.get_input_embeddings().register_forward_hook(self._add),
        ]

    def on_train_end(self, *_: Any, **__: Any) -> None:
        for hook in self.hooks:
            hook.remove()

    def _see_rows(self, module: nn.Module, positional: Any, inputs: dict[str, Any]) -> None:
        positions, mask = inputs.get("position_ids"), inputs.get("attention_mask")
        self.tokens = None
        if mask is not None:
            self.tokens = mask.sum(-1, keepdim=True)
        elif positions is not None:
            row = (positions[0] == 0).cumsum(0) - 1
            self.tokens = torch.bincount(row)[row][None]

    def _add(self, module: nn.Module, inputs: Any, embedded: torch.Tensor) -> torch.Tensor:
        """`embedded`: (rows, tokens, hidden)."""
        if not module.training:
            return embedded
        tokens = embedded.new_full((1, 1), embedded.shape[1]) if self.tokens is None else self.tokens
        largest = self.alpha / (tokens * embedded.shape[-1]).sqrt()
        noise = torch.empty_like(embedded).uniform_(-1, 1)
        return embedded + noise * largest[..., None].to(embedded.dtype)
