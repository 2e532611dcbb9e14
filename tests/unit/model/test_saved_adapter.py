"""save_adapter: an ordinary PEFT adapter, equal to what is in memory."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.model.adapter import save_adapter
from lib.model.base import StageBase, load_tokenizer
from lib.settings import StageSettings

TinyModel = Callable[..., Path]
Trained = Callable[..., tuple[Path, Any]]


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "qwen3_moe_mixed", "qwen2_moe", "qwen3"])
def test_plain_peft_loads_the_model_that_is_in_memory(
    family: str,
    tiny_model: TinyModel,
    trained_adapter: Trained,
    load: Callable[[Path], Any],
    logits: Callable[[Any], Any],
) -> None:
    import torch
    from peft import PeftModel

    folder, model = trained_adapter(tiny_model(family))
    base = load(tiny_model(family))
    without = logits(base)
    loaded = logits(PeftModel.from_pretrained(base, str(folder)))
    torch.testing.assert_close(loaded, logits(model), atol=1e-4, rtol=1e-4)
    assert (loaded - without).abs().max() > 0.1


@pytest.mark.parametrize("requested", [("q_proj",), ("gate_proj", "up_proj", "down_proj")])
def test_an_adapter_of_one_kind_alone_on_a_model_with_experts(
    requested: tuple[str, ...],
    tiny_model: TinyModel,
    trained_adapter: Trained,
    load: Callable[[Path], Any],
    logits: Callable[[Any], Any],
) -> None:
    """PEFT then has an empty set of modules, or of parameters."""
    import torch
    from peft import PeftModel

    folder, model = trained_adapter(tiny_model("qwen3_moe"), requested=requested)
    loaded = logits(PeftModel.from_pretrained(load(tiny_model("qwen3_moe")), str(folder)))
    torch.testing.assert_close(loaded, logits(model), atol=1e-4, rtol=1e-4)
    assert "set()" not in (folder / "adapter_config.json").read_text()


def test_the_adapter_is_a_few_ordinary_files(
    tiny_model: TinyModel, trained_adapter: Trained, stage_settings: Callable[..., StageSettings]
) -> None:
    import torch
    from safetensors.torch import load_file

    folder, model = trained_adapter(tiny_model("qwen3_moe"))
    names = {path.name for path in folder.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= names
    assert "chat_template.jinja" in names
    assert not any(name.endswith(".part") for name in names)
    tensors = load_file(folder / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert not any(".default." in name for name in tensors)
    assert sum(t.numel() for t in tensors.values()) == sum(
        p.numel() for p in model.parameters() if p.requires_grad
    )
    mode = (folder / "adapter_model.safetensors").stat().st_mode
    assert mode & 0o777 == 0o644


def test_saving_twice_gives_the_same_bytes_and_the_hash_of_them(
    tiny_model: TinyModel, trained_adapter: Trained, stage_settings: Callable[..., StageSettings]
) -> None:
    base = tiny_model("qwen3_moe")
    folder, model = trained_adapter(base)
    names = ("adapter_config.json", "adapter_model.safetensors")
    first = {name: (folder / name).read_bytes() for name in names}
    config = model.peft_config["default"]
    config.target_modules = sorted(config.target_modules, reverse=True)
    settings = stage_settings(base)
    stage_base = StageBase(str(base), "", str(base), merged=False, reused=False, seconds=0.0)
    save_adapter(model, load_tokenizer(settings.model), settings, stage_base)
    assert {name: (folder / name).read_bytes() for name in names} == first


def test_the_configuration_names_base_targets_and_nothing_unsorted(
    tiny_model: TinyModel, trained_adapter: Trained
) -> None:
    base = tiny_model("qwen3_moe")
    folder, _ = trained_adapter(base)
    text = (folder / "adapter_config.json").read_text()
    config = json.loads(text)
    assert config["base_model_name_or_path"] == str(base)
    assert config["inference_mode"] is True
    assert config["target_modules"] == sorted(config["target_modules"])
    assert config["target_parameters"] == ["mlp.experts.down_proj", "mlp.experts.gate_up_proj"]
    assert list(config) == sorted(config)
    assert (config["r"], config["lora_alpha"], config["task_type"]) == (4, 8.0, "CAUSAL_LM")


def test_fp32_when_asked_for(tiny_model: TinyModel, trained_adapter: Trained) -> None:
    import torch
    from safetensors.torch import load_file

    folder, _ = trained_adapter(tiny_model("qwen3"), SFT_ADAPTER_DTYPE="fp32")
    tensors = load_file(folder / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
