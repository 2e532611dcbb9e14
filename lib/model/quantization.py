"""Frozen linear layers in four bits, by bitsandbytes: nf4, as QLoRA has it.

Paper: https://arxiv.org/abs/2305.14314. Only what is loaded is quantised. Earlier stages are merged into the
base's own files, which stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

    from lib.model.architecture import Architecture
    from lib.settings.schema.model import Quantization

WORDING = {"none": "", "nf4": "nf4", "nf4-double": "nf4 with double quantisation"}
EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")
# In a model with experts these stay as they are: PEFT reaches the dense layers beside experts by their
# weights alone (see targets), which it cannot do with packed ones; and routers are tiny and decide much.
UNQUANTIZED_BESIDE_EXPERTS = ("gate_proj", "up_proj", "down_proj", "gate", "router", "lm_head")


def loaded_as(quantization: Quantization) -> str:
    """Part of a line about a base: `, loaded as nf4`; empty for one that is loaded as its files are."""
    return f", loaded as {WORDING[quantization]}" if quantization != "none" else ""


def quantization_config(quantization: Quantization, config: PretrainedConfig, dtype: torch.dtype) -> Any:
    """The configuration for `from_pretrained`, None where nothing is quantised. Computes in `dtype`."""
    if quantization == "none":
        return None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=quantization == "nf4-double",
        bnb_4bit_compute_dtype=dtype,
        # None: transformers leaves out the head, tied or not.
        llm_int8_skip_modules=list(UNQUANTIZED_BESIDE_EXPERTS) if _has_experts(config) else None,
    )


def _has_experts(config: PretrainedConfig) -> bool:
    return any(getattr(config, name, None) for name in EXPERT_COUNTS)


def prepare_quantized(model: PreTrainedModel) -> None:
    """What training and evaluation need of a model that was loaded quantised."""
    _compute_norms_in_fp32(model)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # On CPUs with AVX512-BF16 the first pass in evaluation mode would pack the weights anew, for a
            # kernel with coarser scales and without gradients (bitsandbytes 0.50, docs/log.md).
            module.support_avx512bf16_for_cpu = False


def _compute_norms_in_fp32(model: PreTrainedModel) -> None:
    """Weights and arithmetic of all norms in fp32; they hand on the number type that they were given.

    Of PEFT's `prepare_model_for_kbit_training` this is the part that is needed: freezing happens elsewhere,
    embeddings and head in fp32 would cost gigabytes, and our gradient checkpointing needs no hook on the
    inputs. DeepSpeed casts every parameter to bf16 when it takes a model over, so each call sees to the type.
    """
    for module in model.modules():
        if type(module).__name__.endswith("Norm"):
            module.forward = partial(_in_fp32, module, module.forward)


def _in_fp32(
    norm: nn.Module, forward: Callable[..., torch.Tensor], hidden: torch.Tensor, *others: Any
) -> torch.Tensor:
    import torch

    if any(parameter.dtype != torch.float32 for parameter in norm.parameters(recurse=False)):
        norm.float()
    return forward(hidden.float(), *others).to(hidden.dtype)


def is_quantized(parameter: torch.Tensor) -> bool:
    return type(parameter).__name__ == "Params4bit"


def weights_in(parameter: torch.Tensor) -> int:
    """How many weights a parameter stands for; a quantised one packs two into a byte."""
    state = getattr(parameter, "quant_state", None)
    return int(state.shape.numel()) if state is not None else parameter.numel()


def quantizable_share(architecture: Architecture) -> float:
    """Share of a model's weights that nf4 takes, from its sizes: the linear layers of the blocks, without
    the MLPs of a model with experts."""
    attention = architecture.layers * architecture.attention_parameters
    if architecture.experts:
        return attention / architecture.parameters
    mlp = 3 * architecture.layers * architecture.hidden * architecture.intermediate
    return (attention + mlp) / architecture.parameters


def few_quantized(share: float) -> str:
    """The warning about a model with experts, of whose weights only `share` are quantised."""
    return (
        f"[WARNING] SFT_QUANTIZATION reaches {share:.1%} of this model's weights: bitsandbytes does not "
        "quantise stacked experts, they stay in SFT_DTYPE and memory hardly falls. A dense model takes it "
        "whole; for this one set SFT_QUANTIZATION=none and use more or larger GPUs"
    )
