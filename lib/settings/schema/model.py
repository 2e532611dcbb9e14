"""The base model and the adapter."""

from dataclasses import dataclass
from typing import Literal

from lib.settings.keys import key
from lib.settings.readers import choice, integer, local_or_named, number, text, words

MODULES = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
ALL_LINEAR = "all-linear"
Quantization = Literal["none", "nf4", "nf4-double"]


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The base model and how it is loaded."""

    base_model: str = key(
        "SFT_BASE_MODEL",
        None,
        local_or_named("a Hub id or a local folder"),
        known_as=("SFT_MODEL", "SFT_MODEL_NAME", "SFT_BASE_MODEL_ID"),
        meaning="The model that the curriculum starts from; the same in all stages",
    )
    base_revision: str = key(
        "SFT_BASE_REVISION",
        "",
        text("a branch, tag or commit of the Hub, or empty"),
        meaning="Which version of a base model on the Hub; empty: `main`",
    )
    dtype: Literal["auto", "bf16", "fp32"] = key(
        "SFT_DTYPE",
        "auto",
        choice("auto", "bf16", "fp32"),
        known_as=("SFT_BF16",),
        meaning="Number type of the frozen base; auto: bf16 on a GPU that has it, else fp32",
    )
    quantization: Quantization = key(  # noqa: RUF009 (key() is a dataclass field)
        "SFT_QUANTIZATION",
        "none",
        choice("none", "nf4", "nf4-double"),
        known_as=("SFT_LOAD_IN_4BIT", "SFT_USE_4BIT", "SFT_QLORA", "SFT_QUANT_TYPE"),
        meaning="Four-bit loading of the frozen base (QLoRA): nf4, or nf4 with its scales quantised too; "
        "earlier stages are merged into the unquantised weights first",
    )
    attention: Literal["auto", "flash_attention_2", "sdpa", "eager"] = key(
        "SFT_ATTENTION",
        "auto",
        choice("auto", "flash_attention_2", "sdpa", "eager"),
        known_as=("SFT_ATTN_IMPLEMENTATION",),
        meaning="Attention implementation; auto: flash attention where it is usable, else SDPA; eager for "
        "a model that caps its attention logits (Gemma-2)",
    )
    gradient_checkpointing: Literal["auto", "0", "1"] = key(
        "SFT_GRADIENT_CHECKPOINTING",
        "auto",
        choice("auto", "0", "1"),
        meaning="Recompute activations in the backward pass to save memory; auto: where a pass would not fit "
        "without, by the memory estimate",
    )
    merge_mode: Literal["merge", "stack"] = key(
        "SFT_MERGE_MODE",
        "merge",
        choice("merge", "stack"),
        meaning="How earlier stages enter the base: merged into a copy of its weights (rounded once), or "
        "stacked beside them as frozen factors (no copy, nothing rounded, some per cent slower)",
    )
    merge_min_kept: float = key(
        "SFT_MERGE_MIN_KEPT",
        "0.5",
        number(minimum=0, maximum=1),
        unit="share",
        meaning="Warn when rounding keeps less of the earlier stages' update than this",
    )


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """The adapter that this stage trains."""

    rank: int = key(
        "SFT_LORA_R",
        "16",
        integer(minimum=1),
        unit="rank",
        known_as=("SFT_LORA_RANK", "SFT_RANK"),
        meaning="Rank of every new adapter",
    )
    alpha: float = key(
        "SFT_LORA_ALPHA", "32", number(above=0), meaning="The update is scaled by alpha ÷ rank"
    )
    dropout: float = key(
        "SFT_LORA_DROPOUT",
        "0.05",
        number(minimum=0, below=1),
        unit="probability",
        meaning="Dropout on the input of the adapters",
    )
    target_modules: tuple[str, ...] = key(
        "SFT_LORA_TARGET_MODULES",
        MODULES,
        words(f"a comma-separated list of module names, or {ALL_LINEAR}"),
        known_as=("SFT_TARGET_MODULES",),
        meaning="Which linear layers get an adapter; gate, up and down reach the experts of an MoE model "
        "too. all-linear: all but the head and routers",
    )
    adapter_dtype: Literal["bf16", "fp32"] = key(
        "SFT_ADAPTER_DTYPE",
        "bf16",
        choice("bf16", "fp32"),
        meaning="Number type of the saved adapter; it is always trained in fp32",
    )
