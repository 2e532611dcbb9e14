"""A saved LoRA adapter as files: which two tensors make up the update of which parameter.

Follows PEFT 0.21: a linear layer's factors lie under its own name; those of an expert stack under the name of
the module that holds it, wrapped once for each of its parameters (`experts.base_layer.lora_A` is the first of
two that are adapted, `experts.lora_A` the last). Free of torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.files import read_json
from lib.model.adapter import ADAPTER_WEIGHTS
from lib.model.weight_files import VALUE_BYTES, StoredTensor, read_header
from lib.settings import InputError

PREFIX = "base_model.model."
WRAPPED = ".base_layer"
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
# In the order in which models register them, which is the order in which PEFT wraps them.
EXPERT_PARAMETERS = ("gate_up_proj", "down_proj")
ONE_EXPERT = re.compile(r"\.experts\.\d+\.")
# Kinds of LoRA whose update is not s·BA, or whose factors belong to a base that was changed first.
UNSUPPORTED = (
    "use_dora", "layer_replication", "use_qalora", "alora_invocation_tokens", "arrow_config",
    "velora_config", "monteclora_config", "kasa_config", "use_bdlora", "megatron_config",
)  # fmt: skip
CHANGES_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class LowRankUpdate:
    """What one adapter adds to one parameter: scaling x B @ A.

    `down` is A, (experts x rank, inputs), one expert after the other; `up` is B, (outputs, rank x experts),
    one rank after the other. A parameter that is no expert stack counts as one expert.
    """

    adapter: Path
    parameter: str
    down: StoredTensor
    up: StoredTensor
    rank: int
    scaling: float
    fan_in_fan_out: bool
    """PEFT's word for a layer whose weight is kept as (inputs, outputs)."""

    @property
    def inputs(self) -> int:
        return self.down.shape[-1]

    @property
    def outputs(self) -> int:
        return self.up.shape[0]


@dataclass(frozen=True)
class SavedAdapter:
    """The configuration and all updates of an adapter folder."""

    folder: Path
    config: Mapping[str, Any]
    updates: tuple[LowRankUpdate, ...]


def read_adapter(folder: Path) -> SavedAdapter:
    """The adapter in `folder`, every one of its tensors accounted for.

    Raises InputError when it cannot be read, is of a kind that cannot be merged, or has a tensor that is
    neither half of a pair of factors.
    """
    try:
        config = read_json(folder / "adapter_config.json")
        tensors = read_header(folder / ADAPTER_WEIGHTS)
        kind = _unsupported_kind(config)
        pairs = _pairs(tensors)
        updates = tuple(_update(folder, config, path, pairs[path]) for path in sorted(pairs))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, re.error) as error:
        raise misfit(folder, " ".join(f"{error}".split())[:300]) from error
    if kind:
        raise misfit(folder, f"it uses {kind}, whose update cannot be added to the weights here")
    return SavedAdapter(folder, config, updates)


def _unsupported_kind(config: Mapping[str, Any]) -> str:
    if config.get("peft_type", "LORA") != "LORA":
        return str(config["peft_type"])
    initialised = str(config.get("init_lora_weights"))
    if initialised.startswith(CHANGES_THE_BASE):
        return f"init_lora_weights={initialised}"
    return next((name for name in UNSUPPORTED if config.get(name)), "")


def _pairs(tensors: Mapping[str, StoredTensor]) -> dict[str, tuple[StoredTensor, StoredTensor]]:
    """Module path to (A, B). Raises ValueError when a tensor is left over."""
    pairs = {
        name.removesuffix(DOWN): (tensor, tensors[name.removesuffix(DOWN) + UP])
        for name, tensor in tensors.items()
        if name.endswith(DOWN) and name.removesuffix(DOWN) + UP in tensors
    }
    paired = {tensor.name for pair in pairs.values() for tensor in pair}
    left = sorted(tensors.keys() - paired)
    left += [name for name in sorted(paired) if not name.startswith(PREFIX) or ONE_EXPERT.search(name)]
    left += [
        name
        for name in sorted(paired)
        if tensors[name].dtype not in VALUE_BYTES or len(tensors[name].shape) != 2
    ]
    if left:
        raise ValueError(f"{len(left)} tensors have no counterpart, for example {left[0]}")
    if not pairs:
        raise ValueError("it holds no LoRA factors")
    return pairs


def _update(
    folder: Path, config: Mapping[str, Any], path: str, pair: tuple[StoredTensor, StoredTensor]
) -> LowRankUpdate:
    module = path.removeprefix(PREFIX)
    depth = module.count(WRAPPED)
    module = module.replace(WRAPPED, "")
    targeted = [name for name in EXPERT_PARAMETERS if _is_named(f"{module}.{name}", _parameters(config))]
    if targeted and depth < len(targeted):
        parameter = key = f"{module}.{targeted[-1 - depth]}"
    elif depth == 0 and not module.endswith(".experts"):
        parameter, key = f"{module}.weight", module
        if _is_named(parameter, _parameters(config)):
            key = parameter
    else:
        raise ValueError(f"adapter_config.json does not say which parameter {pair[0].name} adapts")
    rank = int(_of_pattern(config.get("rank_pattern"), key, config["r"]))
    alpha = float(_of_pattern(config.get("alpha_pattern"), key, config["lora_alpha"]))
    scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return LowRankUpdate(folder, parameter, *pair, rank, scaling, bool(config.get("fan_in_fan_out")))


def _parameters(config: Mapping[str, Any]) -> Sequence[str]:
    return config.get("target_parameters") or ()


def _is_named(path: str, targets: Iterable[str]) -> bool:
    return any(path == target or path.endswith(f".{target}") for target in targets)


def _of_pattern(patterns: Mapping[str, Any] | None, key: str, default: Any) -> Any:
    """As PEFT looks up rank and alpha: the first pattern that the end of the name matches."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", key):
            return value
    return default


def is_targeted(config: Mapping[str, Any], parameter: str) -> bool:
    """Whether the configuration asks for an adapter on this parameter of a model that has it."""
    if _is_named(parameter, _parameters(config)):
        return True
    modules = config.get("target_modules") or ()
    partly = any(config.get(name) for name in ("layers_to_transform", "layers_pattern", "exclude_modules"))
    if partly or not parameter.endswith(".weight"):
        return False
    module = parameter.removesuffix(".weight")
    if isinstance(modules, str):
        return re.fullmatch(modules, module) is not None
    return _is_named(module, modules)


def misfit(adapter: Path, reason: str) -> InputError:
    """The error of an adapter that cannot be added to this base."""
    return InputError.of(
        where=str(adapter),
        key="SFT_BASE_MODEL",
        value=str(adapter),
        expected=f"an adapter that fits the base model ({reason})",
        remedy="use the base model that the earlier stage was trained on, or train that stage again "
        "(python train.py --stage N --force)",
    )
