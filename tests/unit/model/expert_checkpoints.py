"""The same model saved in the ways in which checkpoints come, and a plain reference of the merged weights."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ADAPTER_FILE = "adapter_model.safetensors"


def load_tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {
        name: tensor
        for file in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def in_shards(base: Path, folder: Path, shard_of: Callable[[str], int]) -> Path:
    """A copy of the model whose tensors lie in the shards that `shard_of` says."""
    from safetensors.torch import save_file

    shutil.copytree(base, folder)
    tensors = load_tensors(folder)
    (folder / "model.safetensors").unlink()
    names = {name: f"model-{shard_of(name):05}.safetensors" for name in tensors}
    for shard in set(names.values()):
        content = {name: tensors[name] for name in tensors if names[name] == shard}
        save_file(content, folder / shard, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def fused(base: Path, folder: Path) -> Path:
    """A copy of the model whose experts are stacked on disk, as transformers 5 holds them."""
    from transformers import AutoModelForCausalLM

    shutil.copytree(base, folder)
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    model.save_pretrained(folder, save_original_format=False)
    return folder


def edit(adapter: Path, folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Path:
    """A copy of the adapter after `change(tensors, config)`."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(adapter, folder)
    tensors, config = (
        load_file(folder / ADAPTER_FILE),
        json.loads((folder / "adapter_config.json").read_text()),
    )
    change(tensors, config)
    save_file(tensors, folder / ADAPTER_FILE, metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def updates(adapter: Path, scaling: Callable[[str, int], float] | None = None) -> dict[str, np.ndarray]:
    """ΔW in float64 by the model's parameter, from the factors in the file, with loops over experts and
    ranks: nothing of PEFT, and nothing of what is tested. Four experts."""
    from safetensors.torch import load_file

    tensors = load_file(adapter / ADAPTER_FILE)
    config = json.loads((adapter / "adapter_config.json").read_text())
    found = {}
    for name in (name for name in tensors if name.endswith("lora_A.weight")):
        path = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        down = tensors[name].double().numpy()
        up = tensors[name.replace("lora_A", "lora_B")].double().numpy()
        if ".experts" not in path:
            scale = scaling(path, down.shape[0]) if scaling else config["lora_alpha"] / down.shape[0]
            found[f"{path}.weight"] = scale * (up @ down)
            continue
        leaf = "gate_up_proj" if ".base_layer" in path else "down_proj"
        parameter = f"{path.split('.experts')[0]}.experts.{leaf}"
        experts = 4
        rank = down.shape[0] // experts
        scale = scaling(parameter, rank) if scaling else config["lora_alpha"] / rank
        stack = np.zeros((experts, up.shape[0], down.shape[1]))
        for expert in range(experts):
            for r in range(rank):
                stack[expert] += np.outer(up[:, r * experts + expert], down[expert * rank + r])
        found[parameter] = scale * stack
    return found


def assert_merged_exactly(merged: Path, base: Path, summed: Sequence[dict[str, np.ndarray]]) -> int:
    """Every parameter is round(W0 + Σ s·BA), summed in float64, bit for bit. Returns how many moved."""
    import torch
    from transformers import AutoModelForCausalLM

    before = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    after = AutoModelForCausalLM.from_pretrained(merged, dtype="auto")
    moved = 0
    for name, parameter in after.named_parameters():
        start = before.get_parameter(name)
        exact = start.double()
        for deltas in summed:
            if name in deltas:
                exact = exact + torch.from_numpy(deltas[name])
        assert parameter.dtype == start.dtype
        assert torch.equal(parameter, exact.to(start.dtype)), name
        moved += not torch.equal(parameter, start)
    assert moved == len(set().union(*summed))
    return moved


def rslora(alpha: float) -> Callable[[str, int], float]:
    return lambda path, rank: alpha / math.sqrt(rank)
