"""architecture.py: sizes read from config.json equal those of the real model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.model.architecture import Architecture, read_architecture
from lib.settings import InputError

TinyModel = Callable[..., Path]
Load = Callable[[Path], Any]
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FAMILIES = ["qwen3_moe", "mixtral", "qwen3_moe_mixed", "qwen2_moe", "qwen3", "gemma2"]


def read(folder: Path) -> Architecture:
    found = read_architecture(folder)
    assert found is not None
    return found


def is_left_out(name: str) -> bool:
    return "norm" in name or name.endswith(".bias")


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_equal_the_real_models_norms_aside(family: str, tiny_model: TinyModel, load: Load) -> None:
    folder = tiny_model(family)
    counted = sum(p.numel() for name, p in load(folder).named_parameters() if not is_left_out(name))
    assert read(folder).parameters == counted


@pytest.mark.parametrize("overrides", [{"num_key_value_heads": 1}, {"vocab_size": 96}, {"head_dim": 16}])
def test_no_dimension_is_taken_for_another(
    overrides: dict[str, int], tiny_model: TinyModel, load: Load
) -> None:
    folder = tiny_model("qwen3_moe", **overrides)
    counted = sum(p.numel() for name, p in load(folder).named_parameters() if not is_left_out(name))
    assert read(folder).parameters == counted


def test_tied_embeddings_count_once(tiny_model: TinyModel, load: Load) -> None:
    folder = tiny_model("qwen3", tie_word_embeddings=True)
    counted = sum(p.numel() for name, p in load(folder).named_parameters() if not is_left_out(name))
    assert read(folder).parameters == counted


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("targets", [ALL, ("q_proj",), ("k_proj", "o_proj", "down_proj")])
def test_lora_parameters_equal_the_census(
    family: str, targets: tuple[str, ...], tiny_model: TinyModel, attach: Callable[..., Any]
) -> None:
    folder = tiny_model(family)
    _, census = attach(folder, targets, rank=5)
    assert read(folder).lora_parameters(5, targets) == census.trainable


def test_lora_parameters_under_mixtrals_own_names(tiny_model: TinyModel, attach: Callable[..., Any]) -> None:
    folder = tiny_model("mixtral")
    for targets in (("w1", "w3"), ("w2", "v_proj")):
        assert read(folder).lora_parameters(4, targets) == attach(folder, targets)[1].trainable


def test_of_four_experts_two_are_active(tiny_model: TinyModel) -> None:
    found = read(tiny_model("qwen3_moe"))
    per_expert = 3 * 32 * 16
    embedding = 64 * 32
    assert found.active_parameters == found.parameters - 2 * 2 * per_expert - embedding


def test_a_dense_model_is_active_as_a_whole_but_for_the_look_up(tiny_model: TinyModel) -> None:
    found = read(tiny_model("qwen3"))
    assert found.active_parameters == found.parameters - 64 * 32


def test_bytes_per_weight_follow_the_files(tiny_model: TinyModel) -> None:
    assert read(tiny_model("qwen3", "bfloat16")).bytes_per_weight == 2
    assert read(tiny_model("qwen3")).bytes_per_weight == 4


@pytest.mark.parametrize("content", [None, "{", json.dumps({"model_type": "something_new"}), "{}", "[]"])
def test_unknown_or_unreadable_configurations_give_none(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert read_architecture(tmp_path) is None


def test_gemma_ties_its_embeddings_without_saying_so(tmp_path: Path) -> None:
    sizes = {
        "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "vocab_size": 100,
    }  # fmt: skip
    for family, tied in (("gemma2", True), ("llama", False)):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": family, **sizes}))
        assert read(tmp_path).tied is tied


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": "64"},
        {"num_hidden_layers": 10**12, "num_experts": 4, "mlp_only_layers": [0]},
        {"num_attention_heads": 0},
        {"vocab_size": None},
        {"num_key_value_heads": [1]},
        {"model_type": "qwen3", "intermediate_size": -1},
    ],
)
def test_sizes_that_no_model_has_are_a_user_error(
    change: dict[str, Any], tiny_model: TinyModel, tmp_path: Path
) -> None:
    config = json.loads((tiny_model("qwen3") / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=r"config\.json") as caught:
        read_architecture(tmp_path)
    assert caught.value.problems[0].key == "SFT_BASE_MODEL"
