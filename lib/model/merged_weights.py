"""Folds an attached adapter into the base weights for a while, to generate at the speed of the base.

Unmerged, PEFT builds W + BA of every expert at every generated token.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel


@contextmanager
def temporarily_merged(model: PreTrainedModel) -> Iterator[None]:
    """W becomes round(W + sBA), summed in fp32, and is put back bit for bit at the end.

    A model without adapter is left alone. The originals wait in host memory: on a GPU nothing is held
    twice but one weight at a time.
    """
    with ExitStack() as restored:
        for layer in _lora_layers(model):
            restored.enter_context(_merged(layer))
        yield


def _lora_layers(model: nn.Module) -> list[Any]:
    from peft.tuners.lora import LoraLayer

    return [module for module in model.modules() if isinstance(module, LoraLayer) and _is_plain(module)]


def _is_plain(layer: Any) -> bool:
    """Quantised weights cannot be added to: such a layer goes on computing its adapter apart."""
    return _weight(layer).is_floating_point()


def _weight(layer: Any) -> torch.Tensor:
    return layer.get_param() if hasattr(layer, "get_param") else layer.get_base_layer().weight


@contextmanager
def _merged(layer: Any) -> Iterator[None]:
    import torch

    weight = _weight(layer)
    original, device = weight.data.to("cpu"), weight.device
    with torch.no_grad():
        weight.data = _sum(layer, weight)
    layer.merged_adapters.extend(layer.active_adapters)  # from here on PEFT computes with the base alone
    try:
        yield
    finally:
        layer.merged_adapters.clear()
        weight.data = original.to(device)


def _sum(layer: Any, weight: torch.Tensor) -> torch.Tensor:
    merged = weight.data.float()
    for adapter in layer.active_adapters:
        if adapter in layer.lora_A:
            merged = merged + _update(layer, adapter)
    return merged.to(weight.dtype)


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
