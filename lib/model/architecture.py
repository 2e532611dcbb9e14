"""Sizes of a model read from its config.json, without loading anything. Free of torch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.files import read_json
from lib.settings.errors import InputError
from lib.settings.schema.model import ALL_LINEAR, MODULES

# Families whose blocks are q/k/v/o attention and a gated MLP (dense or experts).
KNOWN = frozenset(
    {"llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma2", "gemma3_text"}
)

SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
SIZES_OF_SOME = (
    "num_key_value_heads", "head_dim", "num_experts", "num_local_experts", "moe_intermediate_size",
    "num_experts_per_tok", "shared_expert_intermediate_size", "decoder_sparse_step",
)  # fmt: skip
LARGEST_SIZE = 2**24
"""Of one dimension; a damaged file may ask to count layers for ever."""

# Families that cap their attention logits also where the configuration leaves that out.
CAPPED_BY_DEFAULT = frozenset({"gemma2"})

# Families whose configuration leaves tie_word_embeddings out when it is true.
TIED_BY_DEFAULT = frozenset({"gemma2", "gemma3_text"})


@dataclass(frozen=True)
class Architecture:
    """Dimensions of a gated-MLP transformer. `experts` is 0 for a dense model.

    Some MoE models keep a dense MLP in a few layers (`dense_layers`, `dense_intermediate` wide), or one
    beside the experts of each (`shared_intermediate` wide); 0 where there is none.
    """

    family: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    experts: int
    experts_per_token: int
    vocabulary: int
    tied: bool
    bytes_per_weight: int
    dense_layers: int = 0
    dense_intermediate: int = 0
    shared_intermediate: int = 0

    @property
    def attention_parameters(self) -> int:
        return self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)

    @property
    def parameters(self) -> int:
        """Weights of the whole model (norms left out: under 0.1 %)."""
        embedding = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return self._in_layers(max(self.experts, 1)) + embedding

    @property
    def active_parameters(self) -> int:
        """Weights that one token passes through, the embedding table's look-up not counted."""
        return self._in_layers(self.experts_per_token or 1) + self.vocabulary * self.hidden

    def _in_layers(self, copies: int) -> int:
        """Weights of all layers, with `copies` MLPs and a router where the experts are."""
        router = self.hidden * (self.experts + bool(self.shared_intermediate))
        wide = self.intermediate * copies + self.shared_intermediate
        sparse = (self.layers - self.dense_layers) * (3 * self.hidden * wide + router)
        dense = self.dense_layers * 3 * self.hidden * self.dense_intermediate
        return self.layers * self.attention_parameters + sparse + dense

    def lora_parameters(self, rank: int, targets: Collection[str]) -> int:
        """Trainable weights of a LoRA of `rank` on the named projections of every layer.

        One projection costs rank * (in + out); on this model's stacked experts gate and up are one
        tensor with 2 * intermediate outputs, and every expert has its own factors.
        """
        targets = MODULES.split(",") if ALL_LINEAR in targets else targets
        query, key_value = self.heads * self.head_dim, self.kv_heads * self.head_dim
        outputs = {"q_proj": query, "k_proj": key_value, "v_proj": key_value}
        per_layer = sum(self.hidden + size for name, size in outputs.items() if name in targets)
        per_layer += query + self.hidden if "o_proj" in targets else 0
        per_sparse_layer = self._mlp_sides(self.shared_intermediate, targets)
        if self.experts:
            if {"gate_proj", "up_proj", "w1", "w3"} & set(targets):
                per_sparse_layer += self.experts * (self.hidden + 2 * self.intermediate)
            if {"down_proj", "w2"} & set(targets):
                per_sparse_layer += self.experts * (self.intermediate + self.hidden)
        else:
            per_sparse_layer += self._mlp_sides(self.intermediate, targets)
        per_dense_layer = self._mlp_sides(self.dense_intermediate, targets)
        sparse_layers = self.layers - self.dense_layers
        return rank * (
            self.layers * per_layer + sparse_layers * per_sparse_layer + self.dense_layers * per_dense_layer
        )

    def _mlp_sides(self, intermediate: int, targets: Collection[str]) -> int:
        """In plus out of the named projections of one dense MLP; 0 when it is 0 wide."""
        named = len({"gate_proj", "up_proj", "down_proj"} & set(targets))
        return named * (self.hidden + intermediate) if intermediate else 0


def read_architecture(folder: Path) -> Architecture | None:
    """Architecture of the model in `folder`; None for a family whose sizes are not known here.

    Raises InputError when its configuration gives no sizes that a model can have.
    """
    try:
        config: Any = read_json(folder / "config.json")
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict) or str(config.get("model_type")) not in KNOWN:
        return None
    try:
        return _architecture(config)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError.of(
            where=str(folder / "config.json"),
            key="SFT_BASE_MODEL",
            value=f"{type(error).__name__}: {error}",
            expected=f"the sizes of a {config['model_type']} model, as whole numbers above 0",
            remedy="fetch the model's config.json again",
        ) from error


def _architecture(config: dict[str, Any]) -> Architecture:
    """Raises KeyError, TypeError, ValueError and ZeroDivisionError for a configuration that is none."""
    for name in (*SIZES, *(name for name in SIZES_OF_SOME if config.get(name))):
        _check_size(name, config[name])
    experts = config.get("num_experts") or config.get("num_local_experts") or 0
    heads = config["num_attention_heads"]
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    intermediate = (config.get("moe_intermediate_size") if experts else None) or config["intermediate_size"]
    return Architecture(
        family=config["model_type"],
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        intermediate=intermediate,
        experts=experts,
        experts_per_token=config.get("num_experts_per_tok") or 0,
        vocabulary=config["vocab_size"],
        tied=bool(config.get("tie_word_embeddings", config["model_type"] in TIED_BY_DEFAULT)),
        bytes_per_weight=2 if "16" in dtype else 4,
        dense_layers=_dense_layers(config) if experts else 0,
        dense_intermediate=config["intermediate_size"] if experts else 0,
        shared_intermediate=(config.get("shared_expert_intermediate_size") or 0) if experts else 0,
    )


def _check_size(name: str, size: Any) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or not 0 < size <= LARGEST_SIZE:
        raise ValueError(f"{name} is {str(size)[:40]}")


def caps_attention_logits(folder: Path) -> bool:
    """Whether the model in `folder` squeezes its attention logits into a range before the softmax."""
    try:
        config: Any = read_json(folder / "config.json")
        return bool(config.get("attn_logit_softcapping", str(config.get("model_type")) in CAPPED_BY_DEFAULT))
    except (OSError, ValueError, AttributeError):
        return False  # who loads the model says what is wrong with it


def _dense_layers(config: dict[str, Any]) -> int:
    """How many layers of a Qwen MoE model have no experts."""
    only, every = config.get("mlp_only_layers") or (), config.get("decoder_sparse_step") or 1
    return sum(layer in only or (layer + 1) % every > 0 for layer in range(config["num_hidden_layers"]))
