"""What a merge refuses, and that it leaves nothing then; what it warns of."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from expert_checkpoints import edit, in_shards, load_tensors

from lib.model.merge import obtain_base
from lib.settings import InputError, ModelSettings

TinyModel = Callable[..., Path]
Trained = Callable[..., tuple[Path, Any]]
Change = Callable[[dict[str, Any], dict[str, Any]], Any]
BLOCK = "base_model.model.model.layers.0"
GATE_UP, DOWN = f"{BLOCK}.mlp.experts.base_layer", f"{BLOCK}.mlp.experts"


def per_expert(tensors: dict[str, Any], _: Any) -> None:
    for half in ("lora_A", "lora_B"):
        tensors[f"{BLOCK}.mlp.experts.0.up_proj.{half}.weight"] = tensors.pop(
            f"{BLOCK}.self_attn.q_proj.{half}.weight"
        )


def without_a_module(tensors: dict[str, Any], _: Any) -> None:
    for half in ("lora_A", "lora_B"):
        del tensors[f"{BLOCK}.self_attn.k_proj.{half}.weight"]


def without_experts_of_a_layer(tensors: dict[str, Any], _: Any) -> None:
    for name in [name for name in tensors if name.startswith(f"{BLOCK}.mlp.experts")]:
        del tensors[name]


def with_magnitude(tensors: dict[str, Any], _: Any) -> None:
    tensors[f"{BLOCK}.self_attn.q_proj.lora_magnitude_vector"] = tensors[
        f"{BLOCK}.self_attn.q_proj.lora_A.weight"
    ][0].clone()


def spoil(name: str, value: float) -> Change:
    return lambda tensors, _: tensors[f"{name}.weight"].view(-1)[3].fill_(value)


def zero(name: str) -> Change:
    return lambda tensors, _: tensors[f"{name}.weight"].zero_()


def configure(**values: Any) -> Change:
    return lambda _, config: config.update(values)


REFUSALS: dict[str, tuple[Change, str]] = {
    "a module of one expert": (per_expert, "experts.0.up_proj.lora_A.weight"),
    "a target without factors": (without_a_module, "no factors for model.layers.0.self_attn.k_proj.weight"),
    "experts without factors": (without_experts_of_a_layer, "no factors for model.layers.0.mlp.experts."),
    "DoRA": (with_magnitude, "lora_magnitude_vector"),
    "not a number": (
        spoil(f"{GATE_UP}.lora_B", float("nan")),
        f"{GATE_UP}.lora_B.weight has values that are not",
    ),
    "infinite": (spoil(f"{DOWN}.lora_A", float("inf")), "not finite"),
    "an expert stack that never learned": (zero(f"{DOWN}.lora_B"), "experts.down_proj was never trained"),
    "attention that never learned": (
        zero(f"{BLOCK}.self_attn.v_proj.lora_B"),
        "v_proj.weight was never trained",
    ),
    "another rank": (configure(r=2), "of rank 2 do not fit"),
    "weight-decomposed": (configure(use_dora=True), "use_dora"),
    "another base": (configure(init_lora_weights="pissa_niter_4"), "pissa"),
    "another method": (configure(peft_type="LOHA"), "LOHA"),
    "unknown expert parameters": (configure(target_parameters=[]), "does not say which parameter"),
    "no rank": (lambda _, config: config.pop("r"), "'r'"),
}


@pytest.fixture
def refuse(
    tiny_model: TinyModel, trained_adapter: Trained, model_settings: Callable[[Path], Any], tmp_path: Path
) -> Callable[[Change], str]:
    """refuse(change): the message about an adapter that was changed so, merged after a good one."""

    def make(change: Change) -> str:
        base = tiny_model("qwen3_moe", "bfloat16")
        good, _ = trained_adapter(base)
        bad = edit(good, tmp_path / "bad", change)
        with pytest.raises(InputError) as caught:
            obtain_base(model_settings(base), [good, bad], tmp_path / "merged", key="k")
        assert not [path for path in tmp_path.iterdir() if path.name.startswith("merged")]
        (problem,) = caught.value.problems
        assert problem.where == str(bad)
        return problem.expected

    return make


@pytest.mark.parametrize("name", REFUSALS)
def test_an_adapter_that_cannot_be_merged_whole(name: str, refuse: Callable[[Change], str]) -> None:
    change, expected = REFUSALS[name]
    assert expected in refuse(change)


def weakened(adapter: Path, folder: Path, factor: float, only: str = "") -> Path:
    def change(tensors: dict[str, Any], _: Any) -> None:
        for name in tensors:
            if "lora_B" in name and only in name:
                tensors[name] *= factor

    return edit(adapter, folder, change)


def test_a_target_whose_update_rounding_swallowed(
    tiny_model: TinyModel, trained_adapter: Trained, model_settings: Callable[[Path], Any], tmp_path: Path
) -> None:
    base = tiny_model("qwen3_moe", "bfloat16")
    weak = weakened(trained_adapter(base)[0], tmp_path / "weak", 1e-9, only="layers.1.self_attn.o_proj")
    with pytest.raises(InputError, match=r"layers\.1\.self_attn\.o_proj\.weight did not move.*MODE=stack"):
        obtain_base(model_settings(base), [weak], tmp_path / "merged", key="k")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("least", [0.0, 0.5, 1.0])
def test_a_warning_when_rounding_keeps_too_little(
    least: float, tiny_model: TinyModel, trained_adapter: Trained, tmp_path: Path
) -> None:
    base = tiny_model("qwen3_moe", "bfloat16")
    weak = weakened(trained_adapter(base)[0], tmp_path / "weak", 2e-4)
    settings = ModelSettings(base_model=str(base), merge_min_kept=least)
    for _ in ("built", "found"):
        found = obtain_base(settings, [weak], tmp_path / "merged", key="k")
        assert found.proof is not None
        assert 0.02 < found.proof["kept"] < 0.45
        assert bool(found.notices) == (least > 0)
        if least:
            (notice,) = found.notices
            assert f"SFT_MERGE_MIN_KEPT={least:g}" in notice
            assert "SFT_MERGE_MODE=stack" in notice
        assert found.proof["least_kept"]["kept"] < found.proof["kept"]


def test_a_sum_that_overflows_the_bases_number_type(
    tiny_model: TinyModel, trained_adapter: Trained, model_settings: Callable[[Path], Any], tmp_path: Path
) -> None:
    base = tiny_model("qwen3_moe", "float16")
    strong = weakened(trained_adapter(base)[0], tmp_path / "strong", 1e7, only="layers.0.self_attn.q_proj")
    with pytest.raises(InputError, match=r"q_proj\.weight would hold values that are not finite"):
        obtain_base(model_settings(base), [strong], tmp_path / "merged", key="k")


def test_an_adapter_of_tied_embeddings(
    tiny_model: TinyModel, trained_adapter: Trained, model_settings: Callable[[Path], Any], tmp_path: Path
) -> None:
    """A checkpoint may hold lm_head although it is tied: whatever is merged into it would not be loaded."""
    import torch

    base = in_shards(tiny_model("qwen3", "bfloat16"), tmp_path / "base", lambda _: 1)
    adapter, _ = trained_adapter(base)
    config = json.loads((base / "config.json").read_text()) | {"tie_word_embeddings": True}
    (base / "config.json").write_text(json.dumps(config))
    head = {
        "base_model.model.lm_head.lora_A.weight": torch.ones(4, 32),
        "base_model.model.lm_head.lora_B.weight": torch.ones(64, 4),
    }
    bad = edit(adapter, tmp_path / "bad", lambda tensors, _: tensors.update(head))
    with pytest.raises(InputError, match=r"lm_head\.weight shares its weight"):
        obtain_base(model_settings(base), [bad], tmp_path / "merged", key="k")


def spoil_base(kind: str, base: Path) -> None:
    index, shard = base / "model.safetensors.index.json", base / "model-00001.safetensors"
    if kind == "cut short":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif kind == "no header":
        shard.write_bytes(b"12")
    elif kind == "shard missing":
        shard.unlink()
    elif kind == "outside the folder":
        content = json.loads(index.read_text())
        content["weight_map"]["lm_head.weight"] = "../elsewhere.safetensors"
        index.write_text(json.dumps(content))
    elif kind == "tensor missing":
        content = json.loads(index.read_text())
        content["weight_map"]["model.more.weight"] = shard.name
        index.write_text(json.dumps(content))
    else:
        index.write_text("{")


@pytest.mark.parametrize(
    "kind",
    ["cut short", "no header", "shard missing", "outside the folder", "tensor missing", "index damaged"],
)
def test_a_damaged_base_is_the_users_to_mend(
    kind: str,
    tiny_model: TinyModel,
    trained_adapter: Trained,
    model_settings: Callable[[Path], Any],
    tmp_path: Path,
) -> None:
    base = in_shards(tiny_model("qwen3_moe"), tmp_path / "base", lambda name: sum(name.encode()) % 2)
    adapter, _ = trained_adapter(base)
    spoil_base(kind, base)
    with pytest.raises(InputError, match="safetensors") as caught:
        obtain_base(model_settings(base), [adapter], tmp_path / "merged", key="k")
    assert caught.value.problems[0].key == "SFT_BASE_MODEL"
    assert not (tmp_path / "merged").exists()


def test_weights_that_are_stored_in_eight_bits(
    tiny_model: TinyModel, trained_adapter: Trained, model_settings: Callable[[Path], Any], tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import save_file

    base = in_shards(tiny_model("qwen3_moe", "bfloat16"), tmp_path / "base", lambda _: 1)
    adapter, _ = trained_adapter(base)
    tensors = load_tensors(base)
    name = "model.layers.0.self_attn.q_proj.weight"
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    save_file(tensors, base / "model-00001.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"q_proj\.weight is stored as F8_E4M3"):
        obtain_base(model_settings(base), [adapter], tmp_path / "merged", key="k")


def test_layers_that_the_model_does_not_load_need_no_factors(
    tiny_model: TinyModel, trained_adapter: Trained, model_settings: Callable[[Path], Any], tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    base = in_shards(tiny_model("qwen3", "bfloat16"), tmp_path / "base", lambda _: 1)
    adapter, _ = trained_adapter(base)
    tensors = load_tensors(base)
    extra = "model.layers.2.self_attn.q_proj.weight"
    tensors[extra] = tensors[extra.replace("2", "1")].clone()
    save_file(tensors, base / "model-00001.safetensors", metadata={"format": "pt"})
    merged = Path(obtain_base(model_settings(base), [adapter], tmp_path / "merged", key="k").path)
    assert (load_tensors(merged)[extra] == tensors[extra]).all()
