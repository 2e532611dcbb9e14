"""The base of a stage as SFT_MERGE_MODE asks for it: earlier adapters merged into its weights, or beside
them.

Beside them (`stack`) the files of the untouched base are loaded as they are, and what the earlier stages add
is computed apart, from their frozen factors: no second copy of the model, and nothing that is rounded away.
Whatever a merge would refuse is refused here too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lib.model.adapter_files import misfit, read_adapter
from lib.model.base import ComputeChoice, StackedAdapters, StageBase, load_base
from lib.model.base_files import obtain_base_folder
from lib.model.checkpoint_layout import ParameterMerge, parameter_of, plan_merge
from lib.model.merge import obtain_base
from lib.model.weight_files import read_checkpoint
from lib.settings import ModelSettings

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from lib.model.frozen_factors import FrozenFactors


def obtain_stage_base(
    model: ModelSettings,
    adapters: Sequence[Path],
    merged_base: Path,
    *,
    key: str,
    mode: Literal["merge", "stack"],
) -> StageBase:
    """What the stage trains on, ready to be loaded; `adapters` are those of earlier stages, oldest first,
    `merged_base` is where a merged one lies or is built. `mode` is SFT_MERGE_MODE; of a stage that was
    trained already, the one of then.

    Raises InputError as `obtain_base` does.
    """
    if mode == "merge":
        return obtain_base(model, adapters, merged_base, key=key)
    stacked = _describe(_plan(model, adapters), adapters) if adapters else None
    name = model.base_model
    return StageBase(
        name, model.base_revision, name, False, False, 0.0,
        mode=mode, stacked=stacked, quantization=model.quantization,
    )  # fmt: skip


def load_stage_base(
    base: StageBase, settings: ModelSettings, compute: ComputeChoice, *, on_gpu: bool
) -> tuple[PreTrainedModel, StageBase]:
    """The model, every parameter frozen, with what belongs beside its weights; and `base` with what there is
    to say about that.

    Raises InputError when there is no such model here, or when an adapter does not fit it or never learned.
    """
    model = load_base(base, compute, on_gpu=on_gpu)
    if base.stacked is None:
        return model, base
    notices = stack(model, _plan(settings, [Path(folder) for folder in base.stacked.folders]))
    return model, replace(base, notices=(*base.notices, *notices))


def _plan(model: ModelSettings, adapters: Sequence[Path]) -> tuple[ParameterMerge, ...]:
    checkpoint = read_checkpoint(obtain_base_folder(model))
    return plan_merge(checkpoint, [read_adapter(adapter) for adapter in adapters])


def _describe(merges: Sequence[ParameterMerge], adapters: Sequence[Path]) -> StackedAdapters:
    factors = [factor for merge in merges for update in merge.updates for factor in (update.down, update.up)]
    return StackedAdapters(
        folders=tuple(map(str, adapters)),
        targets=len(merges),
        parameters=sum(math.prod(factor.shape) for factor in factors),
        adapter_tensors_used=len(factors),
    )


def stack(model: PreTrainedModel, merges: Sequence[ParameterMerge]) -> tuple[str, ...]:
    """Put the updates of earlier stages beside the weights of `model`; into them, where there is no way to
    compute them apart. Returns a notice for what was rounded by that.

    Raises InputError for an update that the model has no place for, or that is zero or not finite.
    """
    from lib.model.expert_lora.plug_in import compute_beside
    from lib.model.frozen_factors import add_for_good, keep_beside

    blocks: dict[nn.Module, None] = {}
    added: list[str] = []
    for merge in merges:
        module, parameter = _place(model, merge)
        factors = _factors(module, parameter, merge)
        if _is_linear(module):
            keep_beside(module, parameter, factors)
        elif not _obstacle(module, parameter):
            keep_beside(module, parameter, factors)
            blocks[module] = None
        else:
            add_for_good(module, parameter, factors)
            added.append(merge.parameter)
    if blocks:
        compute_beside(model, blocks)
    return _rounded(model, added)


def _place(model: nn.Module, merge: ParameterMerge) -> tuple[Any, str]:
    update = merge.updates[-1]
    path, _, parameter = parameter_of(update.parameter).rpartition(".")
    try:
        module = model.get_submodule(path)
        module.get_parameter(parameter)
    except AttributeError as error:
        raise misfit(update.adapter, f"the base as it is loaded has no {update.parameter}") from error
    return module, parameter


def _factors(module: Any, parameter: str, merge: ParameterMerge) -> FrozenFactors:
    from transformers.pytorch_utils import Conv1D

    from lib.model.frozen_factors import FrozenFactors
    from lib.model.low_rank_sum import read_stacked

    weight = module.get_parameter(parameter)
    up, down = read_stacked(merge)
    # As PEFT asks: only experts that transformers dispatches have the attribute.
    transposed = isinstance(module, Conv1D) or (weight.ndim == 3 and getattr(module, "is_transposed", False))
    wanted = (down.shape[2], up.shape[1]) if transposed else (up.shape[1], down.shape[2])
    if weight.shape[-2:] != wanted or (weight.ndim == 3 and len(weight) != merge.experts):
        raise misfit(merge.updates[-1].adapter, f"{merge.parameter} has another shape once it is loaded")
    return FrozenFactors(down, up.permute(2, 0, 1), weight=weight, transposed=transposed)


def _is_linear(module: nn.Module) -> bool:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)


def _obstacle(module: Any, parameter: str) -> str | None:
    """Why nothing can be computed beside this parameter of a module that is no linear layer."""
    from lib.model.expert_lora.plug_in import PROJECTIONS, family_obstacle

    if parameter not in PROJECTIONS or module.get_parameter(parameter).ndim != 3:
        return "neither a linear layer nor experts"
    return family_obstacle(module)


def _rounded(model: nn.Module, added: Sequence[str]) -> tuple[str, ...]:
    import torch

    rounded = [name for name in added if model.get_parameter(parameter_of(name)).dtype != torch.float32]
    if not rounded:
        return ()
    return (
        f"[WARNING] what the earlier stages taught {rounded[0]} ({len(rounded)} such weights) is added to it "
        "and rounded, not kept beside it (SFT_MERGE_MODE=stack): only linear layers and experts can be "
        "computed so",
    )
