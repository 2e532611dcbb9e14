"""Several adapters on one base as a single one: the same update without a merge, so without a rounding.

sum of s_i·B_i·A_i = [s_1·B_1 … s_n·B_n]·[A_1; …; A_n], so the ranks add up and the scalings go into B; the
one scaling alpha ÷ r of the result is 1. What is called what in an adapter's file depends on all that the
adapter has at a place (of stacked experts, the tensor wrapped first lies under `base_layer`). PEFT itself
is asked, on a model without weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lib.model.adapter import ADAPTER, ADAPTER_WEIGHTS, save_config
from lib.model.base_files import base_error
from lib.settings import InputError, ModelSettings

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel


class Target(NamedTuple):
    """A weight of the base: the path of its module, and its name there."""

    module: str
    parameter: str


@dataclass(frozen=True)
class Place:
    """Where an adapter keeps its factors for a target: A is (experts·rank, in), expert by expert; B is
    (out, rank·experts), rank by rank."""

    prefix: str
    rank: int
    scaling: float
    experts: int
    inputs: int
    outputs: int

    @property
    def names(self) -> tuple[str, str]:
        return f"{self.prefix}.lora_A.weight", f"{self.prefix}.lora_B.weight"

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Tensor name → its shape in the file."""
        a, b = self.names
        width = self.rank * self.experts
        return {a: (width, self.inputs), b: (self.outputs, width)}


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter as its file has it."""

    config: LoraConfig
    places: Mapping[Target, Place]
    tensors: Mapping[str, torch.Tensor]


def stack_adapters(model: ModelSettings, folders: Sequence[Path], destination: Path) -> int:
    """Write the sum of the adapters as one standard PEFT adapter on the untouched base; returns its rank.

    A target that only some of them have gets zeros for the others. The number type stays that of the files if
    it holds the scaled factors exactly, else it is fp32. Raises InputError for an adapter that does not fit.
    """
    from safetensors.torch import save_file

    stored = [_read(model, folder) for folder in folders]
    rank = _joint_rank(stored)
    skeleton = _attach(_without_weights(model), _joint_config(stored, rank))
    tensors: dict[str, torch.Tensor] = {}
    for target, place in _places(skeleton).items():
        tensors |= zip(place.names, _stacked(target, place, stored), strict=True)
    destination.mkdir(parents=True, exist_ok=True)
    save_file(_in_stored_type(tensors, stored), destination / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    (destination / ADAPTER_WEIGHTS).chmod(0o644)  # safetensors writes for the owner alone
    base = Path(model.base_model).expanduser()
    save_config(skeleton, destination, str(base.resolve()) if base.is_dir() else model.base_model)
    return rank


def _read(model: ModelSettings, folder: Path) -> StoredAdapter:
    from peft import LoraConfig
    from safetensors.torch import load_file

    try:
        config = LoraConfig.from_pretrained(str(folder))
        tensors = load_file(folder / ADAPTER_WEIGHTS)
        places = _places(_attach(_without_weights(model), config))
    except (OSError, ValueError, TypeError, RuntimeError, KeyError) as error:
        raise _misfit(folder, " ".join(str(error).split())[:300]) from error
    shapes = {name: shape for place in places.values() for name, shape in place.shapes.items()}
    for name in sorted({*shapes, *tensors}):
        if name not in shapes or name not in tensors or shapes[name] != tuple(tensors[name].shape):
            raise _misfit(folder, f"the tensor {name} has no counterpart of its shape")
    return StoredAdapter(config, places, tensors)


def _without_weights(model: ModelSettings) -> PreTrainedModel:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(
            model.base_model, revision=model.base_revision or None, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise base_error(model.base_model, error) from error
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def _attach(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    from peft import get_peft_model

    return get_peft_model(model, config, adapter_name=ADAPTER, low_cpu_mem_usage=True)


def _places(model: PeftModel) -> dict[Target, Place]:
    from peft.tuners.lora import LoraLayer
    from peft.tuners.lora.layer import ParamWrapper

    found = {}
    for name, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        stacked = isinstance(layer, ParamWrapper)
        parameter = layer.parameter_name if stacked else "weight"
        found[Target(name.replace(".base_layer", ""), parameter)] = Place(
            prefix=name,
            rank=layer.r[ADAPTER],
            scaling=layer.scaling[ADAPTER],
            experts=layer.num_experts if stacked else 1,
            inputs=layer.lora_A[ADAPTER].weight.shape[1],
            outputs=layer.lora_B[ADAPTER].weight.shape[0],
        )
    return found


def _joint_rank(stored: Sequence[StoredAdapter]) -> int:
    """Of the target that needs most; the others are filled up with zeros."""
    ranks: dict[Target, int] = {}
    for adapter in stored:
        for target, place in adapter.places.items():
            ranks[target] = ranks.get(target, 0) + place.rank
    return max(ranks.values())


def _joint_config(stored: Sequence[StoredAdapter], rank: int) -> LoraConfig:
    from peft import LoraConfig

    modules = {name for adapter in stored for name in adapter.config.target_modules or ()}
    parameters = {name for adapter in stored for name in adapter.config.target_parameters or ()}
    return LoraConfig(
        r=rank,
        lora_alpha=rank,
        lora_dropout=0.0,
        target_modules=sorted(modules),
        target_parameters=sorted(parameters) or None,
        task_type="CAUSAL_LM",
    )


def _stacked(
    target: Target, place: Place, stored: Sequence[StoredAdapter]
) -> tuple[torch.Tensor, torch.Tensor]:
    """A and B of one target, in fp32."""
    import torch

    a = torch.zeros(place.experts, place.rank, place.inputs)
    b = torch.zeros(place.outputs, place.rank, place.experts)
    start = 0
    for adapter in stored:
        own = adapter.places.get(target)
        if own is None:
            continue
        stop = start + own.rank
        name_a, name_b = own.names
        a[:, start:stop] = adapter.tensors[name_a].float().reshape(own.experts, own.rank, own.inputs)
        factors = adapter.tensors[name_b].float().reshape(own.outputs, own.rank, own.experts)
        b[:, start:stop] = factors * own.scaling
        start = stop
    return a.reshape(-1, place.inputs), b.reshape(place.outputs, -1)


def _in_stored_type(
    tensors: Mapping[str, torch.Tensor], stored: Sequence[StoredAdapter]
) -> dict[str, torch.Tensor]:
    import torch

    types = {tensor.dtype for adapter in stored for tensor in adapter.tensors.values()}
    dtype = types.pop() if len(types) == 1 else torch.float32
    smaller = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    exact = all(torch.equal(smaller[name].float(), tensor) for name, tensor in tensors.items())
    return smaller if exact else dict(tensors)


def _misfit(folder: Path, reason: str) -> InputError:
    return InputError.of(
        where=str(folder),
        key="--adapter-only",
        value=str(folder),
        expected=f"a plain LoRA adapter that fits the base model ({reason})",
        remedy="export the merged model instead, or train that stage again "
        "(python train.py --stage N --force)",
    )
