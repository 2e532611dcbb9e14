"""Folds what stands beside the base weights into them, for a while or for good: it generates faster.

Unmerged, PEFT builds W + BA of every expert at every generated token. What earlier stages left beside the
weights (`frozen_factors`) goes in as well, so that a model is answered for as `export.py` would write it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel

    from lib.model.frozen_factors import FrozenFactors


@dataclass
class AdaptedWeight:
    """A weight of the base, PEFT's layer around it and the factors of earlier stages beside it, where there
    are."""

    module: nn.Module
    parameter: str
    layer: Any = None
    factors: FrozenFactors | None = None

    @property
    def tensor(self) -> torch.Tensor:
        return self.module.get_parameter(self.parameter)


@contextmanager
def temporarily_merged(model: PreTrainedModel) -> Iterator[None]:
    """W becomes round(W + the sum of sBA), summed in fp32, and is put back bit for bit at the end.

    A model without adapter is left alone. The originals wait in host memory: on a GPU nothing is held
    twice but one weight at a time.
    """
    with ExitStack() as restored:
        for weight in _adapted_weights(model):
            restored.enter_context(_merged(weight))
        yield


def merged_for_good(model: PeftModel) -> tuple[PreTrainedModel, str]:
    """The base with the adapter, and what earlier stages left, in its weights, and without PEFT's wrappers:
    the originals are not kept.

    An adapter that is not all low-rank updates of plain weights stays beside them, whole; the text then says
    what of it cannot be added, and is empty otherwise.
    """
    import torch

    obstacle = _obstacle(model)
    if obstacle:
        return model, obstacle
    with torch.no_grad():
        for weight in _adapted_weights(model):
            weight.tensor.data = _sum(weight)
            if weight.factors is not None:
                weight.factors.folded = True
    return model.unload(), ""


def _obstacle(model: PeftModel) -> str:
    """What `_sum` does not know of; empty when there is nothing of the kind."""
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    for name, module in model.named_modules():
        if isinstance(module, AuxiliaryTrainingWrapper):
            return f"{name} is trained as a whole"
        if isinstance(module, BaseTunerLayer) and not isinstance(module, LoraLayer):
            return f"{name} is no LoRA"
        if isinstance(module, LoraLayer):
            if not _place(module).tensor.is_floating_point():
                return f"the weights of {name} are quantised"
            if module.lora_variant or any(module.lora_bias.values()) or len(module.lora_embedding_A):
                return f"{name} is more than a product of two factors"
    return ""


def _place(layer: Any) -> AdaptedWeight:
    """The weight that PEFT's layer adapts."""
    return AdaptedWeight(layer.get_base_layer(), getattr(layer, "parameter_name", "weight"))


def _adapted_weights(model: nn.Module) -> list[AdaptedWeight]:
    """Quantised weights are not among them, they cannot be added to: such a layer goes on computing apart."""
    from peft.tuners.lora import LoraLayer

    from lib.model.frozen_factors import all_beside

    found: dict[tuple[nn.Module, str], AdaptedWeight] = {}
    for module, parameter, factors in all_beside(model):
        if not factors.folded:
            found[module, parameter] = AdaptedWeight(module, parameter, factors=factors)
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            weight = _place(layer)
            found.setdefault((weight.module, weight.parameter), weight).layer = layer
    return [weight for weight in found.values() if weight.tensor.is_floating_point()]


@contextmanager
def _merged(weight: AdaptedWeight) -> Iterator[None]:
    import torch

    tensor, layer, factors = weight.tensor, weight.layer, weight.factors
    original, device = tensor.data.to("cpu"), tensor.device
    with torch.no_grad():
        tensor.data = _sum(weight)
    if layer is not None:
        layer.merged_adapters.extend(layer.active_adapters)  # from here on PEFT computes with the base alone
    if factors is not None:
        factors.folded = True
    try:
        yield
    finally:
        if layer is not None:
            layer.merged_adapters.clear()
        if factors is not None:
            factors.folded = False
        tensor.data = original.to(device)


def _sum(weight: AdaptedWeight) -> torch.Tensor:
    merged = weight.tensor.data.float()
    if weight.factors is not None:
        merged = merged + weight.factors.update()
    for adapter in weight.layer.active_adapters if weight.layer is not None else ():
        if adapter in weight.layer.lora_A:
            merged = merged + _update(weight.layer, adapter)
    return merged.to(weight.tensor.dtype)


def _update(layer: Any, adapter: str) -> torch.Tensor:
    """s·BA in fp32, in the shape of the weight: GPT-2's layers keep theirs as (in, out), in PEFT's words
    fan_in_fan_out. PEFT keeps A of stacked experts as (expert·rank, in) and B as (out, rank·expert)."""
    import torch

    a, b = layer.lora_A[adapter].weight.float(), layer.lora_B[adapter].weight.float()
    scaling = layer.scaling[adapter]
    experts = getattr(layer, "num_experts", 1)
    if experts == 1:
        update = (b @ a) * scaling
        return update.T if getattr(layer, "fan_in_fan_out", False) else update
    a = a.reshape(experts, -1, a.shape[-1])
    b = b.reshape(b.shape[0], -1, experts)
    order = "ore,eri->eoi" if layer._did_swap_in_out_features else "ore,eri->eio"
    return torch.einsum(order, b, a) * scaling
