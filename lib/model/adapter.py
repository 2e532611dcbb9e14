"""Attaches a new LoRA, counts what it trains, and saves it as an ordinary PEFT adapter."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.files import read_json, sync, write_text
from lib.model.base import StageBase
from lib.model.foreign_code import check_adapter_kind
from lib.model.quantization import few_quantized, is_quantized, weights_in
from lib.model.targets import AdapterTargets, keeps_inputs_first
from lib.settings import LoraSettings, StageSettings

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ADAPTER = "default"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
KINDS = ("attention", "experts", "router", "dense_mlp", "other")


@dataclass(frozen=True)
class Census:
    """Trainable parameters by kind; `frozen` counts the base, `quantized` what of it is held in four bits.
    Unit: parameters."""

    attention: int
    experts: int
    router: int
    dense_mlp: int
    other: int
    frozen: int
    tensors: int
    notices: tuple[str, ...] = ()
    quantized: int = 0

    @property
    def trainable(self) -> int:
        return self.attention + self.experts + self.router + self.dense_mlp + self.other

    def line(self) -> str:
        kinds = {kind: getattr(self, kind) for kind in KINDS}
        parts = ", ".join(f"{kind.replace('_', ' ')} {count:,}" for kind, count in kinds.items() if count)
        share = 100 * self.trainable / (self.trainable + self.frozen)
        held = f"; {self.quantized / self.frozen:.1%} of the base in four bits" if self.quantized else ""
        trained = f"{self.trainable:,} trainable parameters ({share:.2f} %) in {self.tensors} tensors"
        return f"  {trained}: {parts}{held}"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "trainable": self.trainable}


def attach_lora(
    model: PreTrainedModel, targets: AdapterTargets, lora: LoraSettings, *, seed: int
) -> tuple[PeftModel, Census]:
    """A new LoRA on `targets`, weights in fp32 (they are rounded when saved, never while learning).

    Two silent habits of PEFT are undone here. It converts expert names itself and doubles
    gate_up's rank: the parameters are named outright. It refuses dropout on parameters: dropout is
    set after attaching, on the linear layers and on the experts whose LoRA we compute ourselves.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    from lib.model.expert_lora.plug_in import use_split_expert_lora

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0 if targets.parameters else lora.dropout,
        target_modules=list(targets.modules),
        target_parameters=list(targets.parameters) or None,
        # PEFT would find out by itself, and warn of each layer that it did.
        fan_in_fan_out=keeps_inputs_first(model, targets.modules),
        task_type="CAUSAL_LM",
    )
    set_seed(seed)
    peft_model = get_peft_model(model, config, autocast_adapter_dtype=True)
    notices = list(use_split_expert_lora(peft_model))
    if targets.parameters and lora.dropout:
        notices += _set_dropout(peft_model, lora.dropout)
    _check_ranks(peft_model, lora.rank)
    return peft_model, take_census(peft_model, targets, tuple(notices))


def _lora_layers(model: PeftModel) -> Iterator[tuple[str, object]]:
    from peft.tuners.lora import LoraLayer

    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


def _set_dropout(model: PeftModel, dropout: float) -> list[str]:
    """Where it can be computed; a notice names the rest."""
    from peft.tuners.lora.layer import ParamWrapper
    from torch import nn

    from lib.model.expert_lora.plug_in import split_wrappers

    split = split_wrappers(model)
    without = []
    for name, layer in _lora_layers(model):
        if isinstance(layer, ParamWrapper) and layer not in split:
            without.append(name)
        else:
            layer.lora_dropout[ADAPTER] = nn.Dropout(dropout)  # type: ignore[attr-defined]
    if not without:
        return []
    return [
        f"[WARNING] SFT_LORA_DROPOUT={dropout:g} does not act on {len(without)} adapters of stacked or named "
        f"parameters that PEFT computes, {without[0]} first: PEFT has no dropout there"
    ]


def _check_ranks(model: PeftModel, rank: int) -> None:
    for name, layer in _lora_layers(model):
        attached = layer.r[ADAPTER]  # type: ignore[attr-defined]
        assert attached == rank, f"{name}: rank {attached} attached where {rank} was asked for"


def take_census(model: PeftModel, targets: AdapterTargets, notices: tuple[str, ...] = ()) -> Census:
    """Count trainable parameters by kind.

    Raises AssertionError when a declared target got no trainable tensor.
    """
    counts = dict.fromkeys(KINDS, 0)
    frozen = quantized = experts = tensors = 0
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            counts[kind_of(name)] += parameter.numel()
            tensors += 1
        else:
            frozen += weights_in(parameter)
            quantized += weights_in(parameter) if is_quantized(parameter) else 0
            experts += ".experts." in name
    if any("experts" in suffix for suffix in targets.parameters):
        assert counts["experts"], "experts were asked for and none is trainable"
    if quantized and experts:
        notices = (*notices, few_quantized(quantized / frozen))
    return Census(**counts, frozen=frozen, tensors=tensors, notices=notices, quantized=quantized)


def kind_of(name: str) -> str:
    """Which of KINDS a parameter with this name belongs to."""
    if ".experts." in name:
        return "experts"
    if ".gate." in name or ".router." in name:
        return "router"
    if "attn" in name or "attention" in name:
        return "attention"
    return "dense_mlp" if ".mlp." in name else "other"


def round_adapter(model: PeftModel, lora: LoraSettings) -> None:
    """Round the adapter to the precision it is saved in, so that what is evaluated is what is kept."""
    dtype = _saved_dtype(lora)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype).to(parameter.dtype)


def _saved_dtype(lora: LoraSettings) -> torch.dtype:
    import torch

    return {"bf16": torch.bfloat16, "fp32": torch.float32}[lora.adapter_dtype]


def save_adapter(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, settings: StageSettings, base: StageBase
) -> None:
    """Write `adapter_model.safetensors`, `adapter_config.json`, tokenizer and template into the stage's
    folder.

    Tensor names and shapes are PEFT's own, so `PeftModel.from_pretrained` loads it anywhere.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder = settings.stage_dir
    dtype = _saved_dtype(settings.lora)
    tensors = get_peft_model_state_dict(model, adapter_name=ADAPTER, save_embedding_layers=False)
    saved = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in sorted(tensors.items())}
    temporary = folder / (ADAPTER_WEIGHTS + ".part")
    temporary.unlink(missing_ok=True)
    save_file(saved, temporary, metadata={"format": "pt"})
    temporary.chmod(0o644)  # safetensors writes for the owner alone
    sync(temporary)
    os.replace(temporary, folder / ADAPTER_WEIGHTS)
    save_config(model, folder, base.path)
    tokenizer.save_pretrained(folder)


def load_trained(model: PeftModel, settings: StageSettings) -> None:
    """Give the new adapter of `model` the weights that `save_adapter` left in the stage's folder."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    tensors = load_file(settings.stage_dir / ADAPTER_WEIGHTS)
    loaded = set_peft_model_state_dict(model, tensors, adapter_name=ADAPTER)
    wrong = [name for name in loaded.missing_keys if ".lora_" in name] + loaded.unexpected_keys
    assert not wrong, f"{ADAPTER_WEIGHTS} does not fit: {wrong[:3]}"


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """`model` with the saved adapter on it, frozen, in fp32 as it was trained.

    Raises OSError and ValueError for a folder without safetensors (PEFT would read a pickle instead) and for
    other kinds of adapters.
    """
    from peft import PeftModel

    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise FileNotFoundError(f"{folder} has no {ADAPTER_WEIGHTS}")
    check_adapter_kind(read_json(folder / ADAPTER_CONFIG))
    return PeftModel.from_pretrained(model, str(folder), autocast_adapter_dtype=True)


def save_config(model: PeftModel, folder: Path, base: str) -> None:
    """adapter_config.json with lists for sets: PEFT's own order changes from run to run, and an empty set
    would be written as text."""
    config = model.peft_config[ADAPTER].to_dict()
    config |= {"base_model_name_or_path": base, "inference_mode": True}
    for key, value in config.items():
        if isinstance(value, set | frozenset) or (value and key in {"target_modules", "target_parameters"}):
            config[key] = sorted(value)
    text = json.dumps(config, indent=2, ensure_ascii=False, sort_keys=True, default=str)
    write_text(folder / ADAPTER_CONFIG, text + "\n")
