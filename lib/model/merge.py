"""Builds the base of a stage: the untouched stage-0 base plus every earlier adapter.

W = round(W0 + sum of the ancestors' updates), summed in fp32 and rounded once, to the precision
of the base's own files. Chaining merges of rounded bases instead would add one rounding per
stage. The result is keyed on content: a folder that exists proves nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lib.model.base import StageBase, base_error, load_model, load_tokenizer
from lib.settings import InputError, ModelSettings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

MERGE_RECORD = "merge.json"


def obtain_base(model: ModelSettings, adapters: Sequence[Path], destination: Path, *, key: str) -> StageBase:
    """The base with `adapters` (oldest first) merged into it, built at `destination` unless the
    same content (`key`) is already there.

    Raises InputError when an adapter does not fit the base; `destination` is then left as it was.
    """
    name = model.base_model
    if not adapters:
        return StageBase(name, model.base_revision, name, merged=False, reused=False, seconds=0.0)
    if merged_key(destination) == key:
        return StageBase(str(destination), "", name, merged=True, reused=True, seconds=0.0)
    started = time.monotonic()
    _build(model, adapters, destination, key)
    return StageBase(
        str(destination), "", name, merged=True, reused=False, seconds=time.monotonic() - started
    )


def merged_key(folder: Path) -> str:
    """Content key of a finished merged base, empty when there is none."""
    try:
        return str(json.loads((folder / MERGE_RECORD).read_text(encoding="utf-8"))["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _build(settings: ModelSettings, adapters: Sequence[Path], destination: Path, key: str) -> None:
    import torch

    name, revision = settings.base_model, settings.base_revision
    model = load_model(name, revision, dtype=torch.float32, attention="eager", device=torch.device("cpu"))
    for adapter in adapters:
        model = add_adapter(model, adapter)
    model = model.to(_dtype_of_files(name, revision))

    temporary = destination.with_name(destination.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    load_tokenizer(settings).save_pretrained(temporary)
    record = {"key": key, "base": name, "adapters": [str(adapter) for adapter in adapters]}
    (temporary / MERGE_RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(destination, ignore_errors=True)
    os.replace(temporary, destination)


def _dtype_of_files(name: str, revision: str) -> torch.dtype:
    import torch
    from transformers import AutoConfig

    try:
        dtype = AutoConfig.from_pretrained(name, revision=revision or None).dtype
    except (OSError, ValueError) as error:
        raise base_error(name, error) from error
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def add_adapter(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """`model` with the adapter's update added to its weights, in the model's own precision.

    Raises InputError when the adapter is missing, does not fit, or is only partly used.
    """
    from peft import PeftModel

    try:
        peft_model = PeftModel.from_pretrained(model, str(adapter))
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise _misfit(adapter, " ".join(str(error).split())[:300]) from error
    _check_every_tensor_used(peft_model, adapter)
    return peft_model.merge_and_unload()


def _check_every_tensor_used(model: torch.nn.Module, adapter: Path) -> None:
    """PEFT only warns about tensors it has no place for, and leaves missing ones at their start."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as file:
        stored = set(file.keys())
    attached = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    if stored != attached:
        example = sorted(stored ^ attached)[0]
        raise _misfit(adapter, f"{len(stored ^ attached)} tensors have no counterpart, for example {example}")


def _misfit(adapter: Path, reason: str) -> InputError:
    return InputError.of(
        where=str(adapter),
        key="SFT_BASE_MODEL",
        value=str(adapter),
        expected=f"an adapter that fits the base model ({reason})",
        remedy="use the base model that the earlier stage was trained on, or train that stage again "
        "(python train.py --stage N --force)",
    )
