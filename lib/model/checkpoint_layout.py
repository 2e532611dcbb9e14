"""Which matrices on disk hold a parameter of the model, and which adapters act on them.

Transformers 5 keeps the experts of a block in two stacks, gate_up_proj and down_proj; on disk they are one
tensor per expert and projection (`experts.7.gate_proj.weight`, in Mixtral's files
`block_sparse_moe.experts.7.w1.weight`) or, where a model was saved so, the stacks themselves. Free of torch.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lib.model.adapter_files import LowRankUpdate, SavedAdapter, is_targeted, misfit
from lib.model.architecture import TIED_BY_DEFAULT
from lib.model.weight_files import VALUE_BYTES, Checkpoint, StoredTensor
from lib.settings import InputError

# An expert's own tensors -> the stack that holds them, and their place in it: gate before up.
PLACE_IN_STACK = {
    "gate_proj": ("gate_up_proj", 0), "up_proj": ("gate_up_proj", 1), "down_proj": ("down_proj", 0),
    "w1": ("gate_up_proj", 0), "w3": ("gate_up_proj", 1), "w2": ("down_proj", 0),
}  # fmt: skip
EXPERT_TENSOR = re.compile(rf"(.*\.experts)\.(\d+)\.({'|'.join(PLACE_IN_STACK)})\.weight")
LAYER = re.compile(r"\.layers\.(\d+)\.")
# Families that keep (inputs, outputs) on disk, in linear layers or in stacks of experts; it shows in the
# shape, except where a matrix is square.
TRANSPOSED_LAYERS = frozenset({"gpt2"})
TRANSPOSED_STACKS = frozenset({"gpt_oss", "openai_privacy_filter", "aria", "aria_text", "qwen3_vl_moe"})
EMBEDDINGS = ("embed_tokens.weight", "lm_head.weight")


@dataclass(frozen=True)
class Matrix:
    """`rows` x `columns` values on disk, `offset` bytes into the file, that one expert's factors act on:
    the rows of its update from `first_row` on."""

    tensor: StoredTensor
    offset: int
    rows: int
    columns: int
    expert: int
    first_row: int

    @property
    def bytes(self) -> int:
        return self.rows * self.columns * VALUE_BYTES[self.tensor.dtype]


@dataclass(frozen=True)
class ParameterMerge:
    """One parameter of the model, where it lies, and all updates that are added to it, oldest first."""

    parameter: str
    matrices: tuple[Matrix, ...]
    experts: int
    transposed: bool
    updates: tuple[LowRankUpdate, ...]

    @property
    def is_experts(self) -> bool:
        return ".experts." in self.parameter


def plan_merge(checkpoint: Checkpoint, adapters: Sequence[SavedAdapter]) -> tuple[ParameterMerge, ...]:
    """Every update of every adapter beside the matrices that it changes.

    Raises InputError for the first update that has no counterpart on disk or another shape, for a target of
    an adapter's configuration that it has no factors for, and for weights that are quantised.
    """
    refuse_quantised(checkpoint)
    stored = _by_parameter(checkpoint.tensors.values())
    updates: dict[str, list[LowRankUpdate]] = defaultdict(list)
    for adapter in adapters:
        for update in adapter.updates:
            _refuse_tied(checkpoint.config, update)
            updates[_name_on_disk(update, stored)].append(update)
        _refuse_untrained(checkpoint.config, stored, adapter)
    return tuple(
        _merge_of(name, stored[name], tuple(updates[name]), checkpoint.config) for name in sorted(updates)
    )


def _by_parameter(tensors: Iterable[StoredTensor]) -> dict[str, list[StoredTensor]]:
    found = defaultdict(list)
    for tensor in tensors:
        found[parameter_of(tensor.name)].append(tensor)
    return dict(found)


def parameter_of(name: str) -> str:
    """The model's parameter that a tensor on disk is, or is a part of."""
    name = name.replace(".block_sparse_moe.", ".mlp.")
    part = EXPERT_TENSOR.fullmatch(name)
    return f"{part[1]}.{PLACE_IN_STACK[part[3]][0]}" if part else name


def _name_on_disk(update: LowRankUpdate, stored: Mapping[str, Any]) -> str:
    """The parameter's name as the files have it: some leave the model's outermost name out."""
    name = parameter_of(update.parameter)
    for spelling in (name, name.partition(".")[2]):
        if spelling in stored:
            return spelling
    raise misfit(update.adapter, f"the base has no {update.parameter}, which {update.down.name} adapts")


def _merge_of(
    name: str, tensors: Sequence[StoredTensor], updates: tuple[LowRankUpdate, ...], config: Mapping[str, Any]
) -> ParameterMerge:
    for tensor in tensors:
        if tensor.dtype not in VALUE_BYTES:
            raise _quantised(str(tensor.file), f"{tensor.name} is stored as {tensor.dtype}")
    if EXPERT_TENSOR.fullmatch(tensors[0].name.replace(".block_sparse_moe.", ".mlp.")):
        matrices = _of_separate_experts(tensors)
    else:
        matrices = _of_stack(tensors[0])
    experts = 1 + max((matrix.expert for matrix in matrices), default=-1)
    shape = _shape_of_each(matrices, experts)
    for update in updates:
        _check_shapes(update, experts, shape)
    transposed = shape != (updates[0].outputs, updates[0].inputs)
    if len(set(shape)) == 1:
        families = TRANSPOSED_STACKS if len(tensors[0].shape) == 3 else TRANSPOSED_LAYERS
        transposed = updates[0].fan_in_fan_out or str(config.get("model_type")) in families
    if transposed and len(tensors) > 1:
        raise misfit(updates[0].adapter, f"{updates[0].down.name} has inputs and outputs the other way round")
    return ParameterMerge(name, matrices, experts, transposed, updates)


def _shape_of_each(matrices: Sequence[Matrix], experts: int) -> tuple[int, ...]:
    """(rows, columns) of every expert's part; empty when they differ or one is missing."""
    rows: dict[int, int] = defaultdict(int)
    for matrix in matrices:
        rows[matrix.expert] += matrix.rows
    columns = {matrix.columns for matrix in matrices}
    alike = len(rows) == experts and len(set(rows.values())) == 1 == len(columns)
    return (rows[0], *columns) if alike else ()


def _of_separate_experts(tensors: Sequence[StoredTensor]) -> tuple[Matrix, ...]:
    """Matrices in the order of experts, those of one expert in the order of the stack."""
    parts: dict[int, dict[int, StoredTensor]] = defaultdict(dict)
    for tensor in tensors:
        _, number, leaf = tensor.name.removesuffix(".weight").rsplit(".", 2)
        parts[int(number)][PLACE_IN_STACK[leaf][1]] = tensor
    matrices = []
    for expert in sorted(parts):
        first_row = 0
        for _, tensor in sorted(parts[expert].items()):
            rows, columns = tensor.shape if len(tensor.shape) == 2 else (0, 0)
            matrices.append(Matrix(tensor, tensor.start, rows, columns, expert, first_row))
            first_row += rows
    return tuple(matrices)


def _of_stack(tensor: StoredTensor) -> tuple[Matrix, ...]:
    """One matrix, or one for each expert of a stack."""
    if len(tensor.shape) not in {2, 3}:
        return ()
    rows, columns = tensor.shape[-2:]
    experts = tensor.shape[0] if len(tensor.shape) == 3 else 1
    step = tensor.length // max(experts, 1)
    return tuple(Matrix(tensor, tensor.start + e * step, rows, columns, e, 0) for e in range(experts))


def _check_shapes(update: LowRankUpdate, experts: int, shape: tuple[int, ...]) -> None:
    factors = update.rank * experts
    fits = update.down.shape[0] == factors == update.up.shape[1]
    if not fits or shape not in {(update.outputs, update.inputs), (update.inputs, update.outputs)}:
        stack = f"{experts} x " if experts > 1 else ""
        size = " x ".join(map(str, shape))
        raise misfit(
            update.adapter,
            f"{update.down.name} {list(update.down.shape)} and lora_B {list(update.up.shape)} of rank "
            f"{update.rank} do not fit {update.parameter}, {stack}{size}",
        )


def _refuse_untrained(
    config: Mapping[str, Any], stored: Mapping[str, Sequence[StoredTensor]], adapter: SavedAdapter
) -> None:
    """An adapter that lacks the factors of a target would leave that target as it was, unnoticed."""
    adapted = {_name_on_disk(update, stored) for update in adapter.updates}
    layers = config.get("num_hidden_layers")
    if layers and not isinstance(layers, int):
        raise misfit(adapter.folder, f"the base's config.json has {str(layers)[:40]!r} for num_hidden_layers")
    for name, tensors in stored.items():
        layer = LAYER.search(name)
        # Files may hold further layers that the model does not load (multi-token prediction).
        loaded = not (layer and layers) or int(layer[1]) < layers
        if loaded and len(tensors[0].shape) > 1 and name not in adapted and is_targeted(adapter.config, name):
            raise misfit(adapter.folder, f"it has no factors for {name}, which its configuration adapts")


def _refuse_tied(config: Mapping[str, Any], update: LowRankUpdate) -> None:
    tied = config.get("tie_word_embeddings", str(config.get("model_type")) in TIED_BY_DEFAULT)
    if tied and update.parameter.endswith(EMBEDDINGS):
        raise misfit(update.adapter, f"{update.parameter} shares its weight with another layer of the base")


def refuse_quantised(checkpoint: Checkpoint) -> None:
    """Raises InputError when the base's files hold quantised weights: adding an update to values that were
    rounded to four or eight bits, and rounding them again, would be another model than the one trained."""
    settings = checkpoint.config.get("quantization_config")
    method = settings.get("quant_method", "quantised") if isinstance(settings, dict) else ""
    marked = next((name for name in checkpoint.tensors if ".quant_state." in name), "")
    if method or marked:
        reason = f"config.json says quantization_config {method}" if method else f"it holds {marked}"
        raise _quantised(str(checkpoint.folder), reason)


def _quantised(where: str, reason: str) -> InputError:
    return InputError.of(
        where="base model",
        key="SFT_BASE_MODEL",
        value=where,
        expected=f"unquantised weights to merge the earlier stages into ({reason})",
        remedy="set SFT_BASE_MODEL to the original model, in bf16 or fp32, that these weights were made from",
    )
