"""Pickles and modules that come with a model: refused by name, with a way to mend it; none of them runs."""

import json
import pickle
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.inference.folder_source import folder_source
from lib.model.adapter import load_adapter
from lib.model.base import load_model, load_tokenizer
from lib.model.foreign_code import (
    ADAPTER_TO_SAFETENSORS,
    MODEL_TO_SAFETENSORS,
    check_adapter_kind,
    pickled_weights,
)
from lib.model.weight_files import read_checkpoint
from lib.settings import InputError, ModelSettings


class Fires:
    """A pickle that writes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def load(folder: Path) -> None:
    import torch

    load_model(str(folder), "", dtype=torch.float32, attention=None, device=torch.device("cpu"))


@pytest.fixture
def own_module(tiny_model: Callable[..., Path], tmp_path: Path) -> Path:
    """A model of a type that only its own module knows, which writes a file when it is imported."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model("qwen3"), folder)
    module = (
        f"open({str(tmp_path / 'fired')!r}, 'w')\nclass Config: pass\nclass Model: pass\nclass Tok: pass\n"
    )
    (folder / "own.py").write_text(module)
    config = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "unheard", "auto_map": auto_map}))
    tokenizer = {"tokenizer_class": "Tok", "auto_map": {"AutoTokenizer": ["own.Tok", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder


def test_a_model_with_code_of_its_own_is_refused_without_a_question(
    own_module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on the terminal"))
    with pytest.raises(InputError, match="never run here"):
        load(own_module)
    with pytest.raises(InputError, match="auto_map"):
        load_tokenizer(ModelSettings(base_model=str(own_module)))
    assert not (tmp_path / "fired").exists()


def test_a_known_model_with_auto_map_is_loaded_without_its_code(own_module: Path, tmp_path: Path) -> None:
    config = json.loads((own_module / "config.json").read_text())
    (own_module / "config.json").write_text(json.dumps(config | {"model_type": "qwen3"}))
    load(own_module)
    assert not (tmp_path / "fired").exists()


@pytest.fixture
def pickled(tiny_model: Callable[..., Path], tmp_path: Path) -> Path:
    """A model whose weights are a pickle that fires."""
    folder = tmp_path / "old model"
    shutil.copytree(tiny_model("qwen3"), folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Fires(tmp_path / "fired")))
    (folder / "training_args.bin").write_bytes(pickle.dumps(Fires(tmp_path / "fired")))
    return folder


def test_pickled_weights_are_refused_with_the_command_that_converts_them(
    pickled: Path, tmp_path: Path
) -> None:
    for refused in (load, read_checkpoint):
        with pytest.raises(InputError, match=r"pytorch_model\.bin") as caught:
            refused(pickled)
        assert "python -c" in str(caught.value)
    assert pickled_weights(pickled) == ["pytorch_model.bin"]
    assert not (tmp_path / "fired").exists()


@pytest.mark.parametrize("config", [{"peft_type": "XLORA"}, {"megatron_config": {}, "peft_type": "IA3"}])
def test_other_kinds_of_adapters_are_not_loaded(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not plain LoRA"):
        check_adapter_kind(config)


def test_an_adapter_that_names_a_module_to_import_is_not_loaded(tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "megatron_config": {"x": 1}, "megatron_core": "own"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(FileNotFoundError):
        load_adapter(None, tmp_path)  # type: ignore[arg-type]
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(ValueError, match="megatron_config"):
        load_adapter(None, tmp_path)  # type: ignore[arg-type]


def test_a_pickled_adapter_cannot_be_asked(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(pickle.dumps(Fires(tmp_path / "fired")))
    with pytest.raises(InputError, match=r"adapter_model\.bin"):
        folder_source(tmp_path, "")
    assert not (tmp_path / "fired").exists()


def run(code: tuple[str, ...], *arguments: Path) -> None:
    command = [sys.executable, "-c", "; ".join(code), *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.slow
def test_the_commands_convert(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    """As they are printed. 20 s: each starts transformers."""
    import torch
    from safetensors.torch import load_file

    folder = tmp_path / "old model"
    shutil.copytree(tiny_model("qwen3"), folder)
    tensors = load_file(folder / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError) as caught:
        load(folder)
    line = str(caught.value).rpartition("python -c")[2].replace("python", sys.executable)
    printed = shlex.split(f"{sys.executable} -c {line}")
    subprocess.run(printed, check=True, capture_output=True, cwd=tmp_path)
    converted = load_file(tmp_path / "old model-safetensors" / "model.safetensors")
    assert all(torch.equal(tensors[name], tensor) for name, tensor in converted.items())
    run(ADAPTER_TO_SAFETENSORS, folder / "pytorch_model.bin", tmp_path / "adapter.safetensors")
    assert load_file(tmp_path / "adapter.safetensors").keys() == tensors.keys()
    assert MODEL_TO_SAFETENSORS[0] in str(caught.value)
