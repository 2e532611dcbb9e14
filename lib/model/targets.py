"""Which linear modules and fused expert tensors get an adapter, decided from the model itself.

In transformers 5 the experts of a mixture-of-experts block are two stacked 3-D parameters, so
a plain list of module names (`gate_proj, up_proj, down_proj`) reaches none of them. Here the
names that users write are mapped to what the model really has, and a name that reaches nothing
is an error: attention-only training by accident cannot happen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lib.model.base_files import base_error
from lib.settings import InputError
from lib.settings.schema.model import ALL_LINEAR

if TYPE_CHECKING:
    from torch import nn

# Names that users write -> the stacked expert parameter that holds them on transformers 5.
EXPERT_PARAMETER_OF = {
    "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj",
    "w1": "gate_up_proj",
    "w3": "gate_up_proj",
    "gate_up_proj": "gate_up_proj",
    "down_proj": "down_proj",
    "w2": "down_proj",
}
FUSED_PAIRS = (frozenset({"gate_proj", "up_proj"}), frozenset({"w1", "w3"}))
ROUTER_NAMES = frozenset({"router", "gate"})


@dataclass(frozen=True)
class AdapterTargets:
    """What a stage adapts.

    `modules` are leaf names of linear layers, `parameters` are path suffixes of stacked expert
    tensors (`mlp.experts.gate_up_proj`), of dense MLP weights in a model that has experts too and,
    when asked for, of the router's weight.
    """

    modules: tuple[str, ...]
    parameters: tuple[str, ...]


def targets_of_config(base: Path, name: str, requested: Sequence[str]) -> AdapterTargets:
    """`find_targets` before any weight is read: the model is built from its configuration alone, on torch's
    meta device, which takes no memory. `name` is what SFT_BASE_MODEL calls the folder `base`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(base)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        raise base_error(name, error) from error
    return find_targets(model, requested)


def find_targets(model: nn.Module, requested: Sequence[str]) -> AdapterTargets:
    """Map the names of SFT_LORA_TARGET_MODULES onto `model`.

    Raises InputError for a name that matches nothing and for half of a fused pair.
    """
    linear = _linear_leaf_names(model)
    stacked = _stacked_parameters(model)
    wanted = _all_linear(linear, stacked) if ALL_LINEAR in requested else set(requested)
    _refuse_half_pairs(wanted, stacked)

    modules = wanted & linear
    # In a model with experts PEFT takes these module names for the experts' and drops the dense
    # layers beside them; named as parameters they are what they are, here and when it is loaded.
    dense = modules & set(EXPERT_PARAMETER_OF) if stacked else set()
    expert_names = {EXPERT_PARAMETER_OF[name] for name in wanted if name in EXPERT_PARAMETER_OF}
    parameters = sorted(suffix for leaf, suffix in stacked if leaf in expert_names)
    router = sorted(_router_suffixes(model)) if wanted & ROUTER_NAMES else []

    reached = modules | {n for n in wanted if EXPERT_PARAMETER_OF.get(n) in {leaf for leaf, _ in stacked}}
    reached |= wanted & ROUTER_NAMES if router else set()
    _refuse_unmatched(wanted - reached, linear, stacked)
    return AdapterTargets(
        modules=tuple(sorted(modules - dense)),
        parameters=tuple(parameters + _linear_weight_suffixes(model, dense) + router),
    )


def _all_linear(linear: set[str], stacked: set[tuple[str, str]]) -> set[str]:
    """Every linear layer but the head, and the experts. What only chooses between them is left out."""
    gates = {name for name in linear if name in ROUTER_NAMES or name.endswith("_gate")}
    return (linear - gates) | {leaf for leaf, _ in stacked}


def _linear_leaf_names(model: nn.Module) -> set[str]:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    names = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    }
    return names - {"lm_head"}


def keeps_inputs_first(model: nn.Module, modules: Sequence[str]) -> bool:
    """Whether the layers with these leaf names keep their weights as (inputs, outputs), as GPT-2's do."""
    from transformers.pytorch_utils import Conv1D

    targeted = [module for name, module in model.named_modules() if name.rpartition(".")[2] in modules]
    return any(isinstance(module, Conv1D) for module in targeted)


def _linear_weight_suffixes(model: nn.Module, leaves: set[str]) -> list[str]:
    """Suffixes of the 2-D weights of linear layers with these leaf names: `shared_expert.up_proj.weight`."""
    paths = [name.split(".") for name, parameter in model.named_parameters() if parameter.ndim == 2]
    return sorted({".".join(path[-3:]) for path in paths if path[-1] == "weight" and path[-2] in leaves})


def _stacked_parameters(model: nn.Module) -> set[tuple[str, str]]:
    """(leaf name, suffix that names it in every layer) of 3-D expert tensors."""
    found = set()
    for name, parameter in model.named_parameters():
        path = name.split(".")
        if parameter.ndim == 3 and path[-1] in {"gate_up_proj", "down_proj"}:
            found.add((path[-1], ".".join(path[-3:])))
    return found


def _router_suffixes(model: nn.Module) -> set[str]:
    """Suffix of the 2-D router weight that sits beside each expert stack."""
    found = set()
    for name, module in model.named_modules():
        if type(module).__name__.endswith("Router") and getattr(module, "weight", None) is not None:
            found.add(".".join(name.split(".")[-2:]) + ".weight")
    return found


def _refuse_half_pairs(wanted: set[str], stacked: set[tuple[str, str]]) -> None:
    for pair in FUSED_PAIRS:
        present = pair & wanted
        if stacked and len(present) == 1:
            (missing,) = pair - present
            raise _target_error(
                ",".join(sorted(wanted)),
                f"both {' and '.join(sorted(pair))}: this model keeps them in one tensor, gate_up_proj",
                f"add {missing}, or remove {next(iter(present))}",
            )


def _refuse_unmatched(unmatched: set[str], linear: set[str], stacked: Iterable[tuple[str, str]]) -> None:
    if unmatched:
        existing = sorted(linear) + sorted(f"{suffix} (experts)" for _, suffix in stacked)
        raise _target_error(
            ",".join(sorted(unmatched)),
            f"names of linear layers or experts of this model: {', '.join(existing)}",
            "correct or remove the names that the model does not have",
        )


def _target_error(value: str, expected: str, remedy: str) -> InputError:
    return InputError.of(
        where="the base model", key="SFT_LORA_TARGET_MODULES", value=value, expected=expected, remedy=remedy
    )
