"""Merged weights are the reference bit for bit, however the base keeps them on disk."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from expert_checkpoints import assert_merged_exactly, edit, fused, in_shards, load_tensors, rslora, updates

from lib.model.merge import MERGE_PROOF, obtain_base
from lib.model.weight_files import read_header
from lib.settings import InputError

TinyModel = Callable[..., Path]
Trained = Callable[..., tuple[Path, Any]]
Settings = Callable[[Path], Any]
FAMILIES = ["qwen3_moe", "qwen3_moe_mixed", "mixtral", "qwen2_moe", "qwen3"]
DTYPES = ["bfloat16", "float16", "float32"]


@pytest.fixture
def merge(model_settings: Settings, tmp_path: Path) -> Callable[..., Path]:
    def make(base: Path, *adapters: Path) -> Path:
        return Path(obtain_base(model_settings(base), adapters, tmp_path / "merged", key="k").path)

    return make


def assert_same_files(merged: Path, base: Path) -> None:
    """Names, sharding, types and places of the original."""
    for shard in base.glob("*.safetensors"):
        places = {t.name: (t.dtype, t.shape, t.start) for t in read_header(shard).values()}
        assert {
            t.name: (t.dtype, t.shape, t.start) for t in read_header(merged / shard.name).values()
        } == places
    index = "model.safetensors.index.json"
    if (base / index).exists():
        assert (merged / index).read_bytes() == (base / index).read_bytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_in_every_number_type(
    family: str, dtype: str, tiny_model: TinyModel, trained_adapter: Trained, merge: Callable[..., Path]
) -> None:
    base = tiny_model(family, dtype)
    adapters = [trained_adapter(base, stage)[0] for stage in (1, 2)]
    merged = merge(base, *adapters)
    assert assert_merged_exactly(merged, base, [updates(adapter) for adapter in adapters]) >= 12
    assert_same_files(merged, base)


def test_six_stages_round_once(
    tiny_model: TinyModel, trained_adapter: Trained, merge: Callable[..., Path]
) -> None:
    base = tiny_model("qwen3_moe", "bfloat16")
    adapters = [trained_adapter(base, stage)[0] for stage in range(1, 7)]
    assert_merged_exactly(merge(base, *adapters), base, [updates(adapter) for adapter in adapters])


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral"])
def test_gate_and_up_of_an_expert_in_different_shards(
    family: str, tiny_model: TinyModel, trained_adapter: Trained, merge: Callable[..., Path], tmp_path: Path
) -> None:
    """Every name hashed to a shard: each expert's three tensors are spread."""
    whole = tiny_model(family, "bfloat16")
    base = in_shards(whole, tmp_path / "base", lambda name: sum(name.encode()) % 3)
    adapter, _ = trained_adapter(base)
    merged = merge(base, adapter)
    assert_merged_exactly(merged, base, [updates(adapter)])
    assert_same_files(merged, base)


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral"])
def test_experts_stacked_on_disk(
    family: str, tiny_model: TinyModel, trained_adapter: Trained, merge: Callable[..., Path], tmp_path: Path
) -> None:
    base = fused(tiny_model(family, "bfloat16"), tmp_path / "base")
    assert any(name.endswith("experts.gate_up_proj") for name in load_tensors(base))
    adapter, _ = trained_adapter(base)
    merged = merge(base, adapter)
    assert_merged_exactly(merged, base, [updates(adapter)])
    assert_same_files(merged, base)


def test_tied_embeddings_stay_tied_and_untouched(
    tiny_model: TinyModel, trained_adapter: Trained, merge: Callable[..., Path]
) -> None:
    base = tiny_model("qwen3", "bfloat16", tie_word_embeddings=True)
    assert "lm_head.weight" not in load_tensors(base)
    adapter, _ = trained_adapter(base)
    assert_merged_exactly(merge(base, adapter), base, [updates(adapter)])


def test_names_without_the_models_outermost_part(
    tiny_model: TinyModel, trained_adapter: Trained, merge: Callable[..., Path], tmp_path: Path
) -> None:
    """A checkpoint of the bare model, without its head: transformers adds `model.` when it loads it."""
    from safetensors.torch import save_file

    whole = tiny_model("qwen3", "bfloat16", tie_word_embeddings=True)
    base = in_shards(whole, tmp_path / "base", lambda name: 1)
    (base / "model.safetensors.index.json").unlink()
    (base / "model-00001.safetensors").unlink()
    tensors = {name.removeprefix("model."): tensor for name, tensor in load_tensors(whole).items()}
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    adapter, _ = trained_adapter(base)
    assert_merged_exactly(merge(base, adapter), base, [updates(adapter)])


def test_rank_stabilised_scaling(
    tiny_model: TinyModel, trained_adapter: Trained, merge: Callable[..., Path], tmp_path: Path
) -> None:
    base = tiny_model("qwen3_moe", "bfloat16")
    adapter = edit(
        trained_adapter(base)[0],
        tmp_path / "rs",
        lambda _, config: config.update(use_rslora=True, lora_alpha=6),
    )
    assert_merged_exactly(merge(base, adapter), base, [updates(adapter, rslora(6))])


@pytest.mark.parametrize("pattern", ["q_proj", "model.layers.0.self_attn.q_proj", r".*\.0\.self_attn.q_proj"])
def test_patterns_of_rank_and_alpha(
    pattern: str, tiny_model: TinyModel, merge: Callable[..., Path], tmp_path: Path
) -> None:
    """PEFT's own adapter, with other ranks and scalings where patterns say so; PEFT is asked which."""
    import torch
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora.layer import LoraLayer, ParamWrapper
    from transformers import AutoModelForCausalLM

    base = tiny_model("qwen3_moe", "float32")
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "v_proj"],
        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        rank_pattern={pattern: 2, "mlp.experts.down_proj": 3},
        alpha_pattern={pattern: 32, r".*\.experts\.gate_up_proj": 5},
    )
    torch.manual_seed(3)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path / "adapter")
    scales = {}
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            path = name.removeprefix("base_model.model.").replace(".base_layer", "")
            if isinstance(layer, ParamWrapper):
                path += f".{layer.parameter_name}"
            scales[path] = layer.scaling["default"]
    assert len(set(scales.values())) == 4
    merged = merge(base, tmp_path / "adapter")
    assert_merged_exactly(merged, base, [updates(tmp_path / "adapter", lambda path, _: scales[path])])


def test_an_adapter_of_one_expert_parameter_alone(
    tiny_model: TinyModel, merge: Callable[..., Path], load: Any, logits: Any, tmp_path: Path
) -> None:
    """Then PEFT wraps once, and gate_up lies where down lies otherwise."""
    import torch
    from peft import LoraConfig, get_peft_model

    base = tiny_model("qwen3_moe")
    config = LoraConfig(r=4, target_modules=["q_proj"], target_parameters=["mlp.experts.gate_up_proj"])
    model = get_peft_model(load(base), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path / "adapter")
    merged = merge(base, tmp_path / "adapter")
    torch.testing.assert_close(logits(load(merged)), logits(model), atol=2e-4, rtol=2e-4)
    assert (logits(load(merged)) - logits(load(base))).abs().max() > 0.1


def test_a_layer_that_is_stored_the_other_way_round(merge: Callable[..., Path], tmp_path: Path) -> None:
    """GPT-2 keeps (inputs, outputs), and c_proj of its attention is square."""
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(5)
    sizes = {"n_embd": 32, "n_head": 4, "n_layer": 2, "vocab_size": 64, "n_positions": 32}
    GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["c_attn", "c_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path / "adapter")
    merged = AutoModelForCausalLM.from_pretrained(merge(tmp_path / "base", tmp_path / "adapter"))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    expected = PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload()
    for name, parameter in expected.named_parameters():
        torch.testing.assert_close(merged.get_parameter(name), parameter, atol=1e-5, rtol=1e-5)


def test_square_layers_of_a_family_that_turns_only_its_experts(
    tiny_model: TinyModel, trained_adapter: Trained, merge: Callable[..., Path]
) -> None:
    """gpt-oss keeps stacks of experts as (inputs, outputs), but its linear layers, here square, as others
    do."""
    base = tiny_model("gpt_oss", "bfloat16")
    adapter, _ = trained_adapter(base, 1, ("q_proj", "o_proj"))
    assert_merged_exactly(merge(base, adapter), base, [updates(adapter)])


def test_the_router_and_dense_layers_beside_experts(
    tiny_model: TinyModel, trained_adapter: Trained, merge: Callable[..., Path]
) -> None:
    base = tiny_model("mixtral", "bfloat16")
    adapter, _ = trained_adapter(base, 1, ("q_proj", "w1", "w2", "w3", "router"))
    found = updates(adapter)
    assert "model.layers.1.mlp.gate.weight" in found
    assert_merged_exactly(merge(base, adapter), base, [found])


def test_the_proof_counts_and_measures(
    tiny_model: TinyModel, trained_adapter: Trained, model_settings: Settings, tmp_path: Path
) -> None:
    """Against kept = <R, D> / <D, D> and noise = |R - D| / |D|, over all tensors, in float64."""
    import numpy as np

    base = tiny_model("qwen3_moe", "bfloat16")
    adapter, _ = trained_adapter(base)

    def weaken_and_skip(tensors: dict[str, Any], _: Any) -> None:
        for name in tensors:
            if "lora_B" in name:
                tensors[name] *= 0.02
        # No token reached expert 3 of layer 0: its columns of B are where the optimizer found them, zero.
        tensors["base_model.model.model.layers.0.mlp.experts.lora_B.weight"][:, 3::4] = 0

    weak = edit(adapter, tmp_path / "weak", weaken_and_skip)
    found = obtain_base(model_settings(base), [weak], tmp_path / "merged", key="k")
    before, after = load_tensors(base), load_tensors(tmp_path / "merged")
    deltas, table = updates(weak), json.loads((tmp_path / "merged" / MERGE_PROOF).read_text())
    intended, real = [], []
    for name in table:
        head, _, leaf = name.removesuffix(".weight").rpartition(".")
        if ".experts." in name:
            block, _, expert = head.rpartition(".")
            stack = deltas[f"{block}.{'down_proj' if leaf == 'down_proj' else 'gate_up_proj'}"][int(expert)]
            half = {"down_proj": slice(None), "gate_proj": slice(16), "up_proj": slice(16, None)}[leaf]
            delta = stack[half]
        else:
            delta = deltas[name]
        change = (after[name].double() - before[name].double()).numpy()
        if delta.any():
            assert table[name]["kept"] == pytest.approx((change * delta).sum() / (delta**2).sum(), abs=1e-4)
            assert table[name]["noise"] == pytest.approx(
                np.linalg.norm(change - delta) / np.linalg.norm(delta), rel=1e-3
            )
        else:
            assert table[name] == {"kept": 1.0, "noise": 0.0, "changed": False}
        intended.append(delta.ravel())
        real.append(change.ravel())
    wanted, done = np.concatenate(intended), np.concatenate(real)
    assert found.proof is not None
    assert found.proof["kept"] == pytest.approx((done @ wanted) / (wanted @ wanted), abs=1e-4)
    assert found.proof["noise"] == pytest.approx(
        np.linalg.norm(done - wanted) / np.linalg.norm(wanted), rel=1e-3
    )
    assert 0.05 < found.proof["noise"] < 1
    assert (found.proof["tensors"], found.proof["expert_tensors"]) == (2 * 4 + 24, 24)
    assert (found.proof["tensors_changed"], found.proof["expert_tensors_changed"]) == (31, 23)
    assert found.proof["adapter_tensors_used"] == 24
    assert "31 tensors changed (23 of 24 expert tensors)" in found.line()


def test_a_quantised_base_is_refused(
    tiny_model: TinyModel, trained_adapter: Trained, merge: Callable[..., Path], tmp_path: Path
) -> None:
    whole = tiny_model("qwen3_moe", "bfloat16")
    adapter, _ = trained_adapter(whole)
    base = in_shards(whole, tmp_path / "base", lambda name: 1)
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"bitsandbytes(.|\n)*original model, in bf16 or fp32"):
        merge(base, adapter)
    assert not (tmp_path / "merged").exists()
