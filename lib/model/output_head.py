"""The last layer of a causal language model as the loss needs it: hidden states to logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class OutputHead:
    """`layer` gives `vocabulary` raw logits; they are multiplied by `scale` and squeezed into ±`softcap`,
    where that is not 0."""

    layer: nn.Module
    vocabulary: int
    scale: float = 1.0
    softcap: float = 0.0

    @property
    def frozen_linear(self) -> nn.Linear | None:
        """The layer, where it is one product with a dense matrix that gets no gradient."""
        if type(self.layer) is not nn.Linear or not self.layer.weight.is_floating_point():
            return None
        return None if any(parameter.requires_grad for parameter in self.layer.parameters()) else self.layer

    @property
    def transforms(self) -> bool:
        return self.scale != 1.0 or self.softcap != 0.0

    def transform(self, logits: torch.Tensor) -> torch.Tensor:
        """Final logits from raw ones (fp32)."""
        scaled = logits * self.scale
        return self.softcap * torch.tanh(scaled / self.softcap) if self.softcap else scaled

    def slope(self, final: torch.Tensor) -> torch.Tensor | float:
        """Derivative of `transform`, from its result."""
        return self.scale * (1 - (final / self.softcap).square()) if self.softcap else self.scale


def output_head(model: PreTrainedModel) -> OutputHead | None:
    """The head of `model` with the scale and cap that its configuration names; None when it has no body and
    head that could be called apart.

    Gemma-2 and later cap, Cohere multiplies by `logit_scale`, Granite divides by `logits_scaling`. A family
    that does something else is for the caller to find out, by comparing losses.
    """
    layer = model.get_output_embeddings()
    if layer is None or model.base_model is model:
        return None
    config = model.config.get_text_config()
    divisor = getattr(config, "logits_scaling", None) or 1.0
    return OutputHead(
        layer,
        config.vocab_size,
        scale=(getattr(config, "logit_scale", None) or 1.0) / divisor,
        softcap=getattr(config, "final_logit_softcapping", None) or 0.0,
    )
