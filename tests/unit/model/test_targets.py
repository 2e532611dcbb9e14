from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.model.targets import find_targets, keeps_inputs_first
from lib.settings import InputError, StageSettings
from lib.settings.schema.model import MODULES

ATTENTION = ("k_proj", "o_proj", "q_proj", "v_proj")
STACKS = ("mlp.experts.down_proj", "mlp.experts.gate_up_proj")
Load = Callable[[Path], Any]
TinyModel = Callable[..., Path]


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral"])
def test_the_default_list_reaches_attention_and_experts(
    family: str, tiny_model: TinyModel, load: Load
) -> None:
    targets = find_targets(load(tiny_model(family)), MODULES.split(","))
    assert targets.modules == ATTENTION
    assert targets.parameters == STACKS


def test_the_users_own_list_of_the_documented_stage_files(
    tiny_model: TinyModel, load: Load, stage_settings: Callable[..., StageSettings]
) -> None:
    """As it stands in an env file: with blanks after the commas."""
    folder = tiny_model("qwen3_moe")
    written = "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"
    settings = stage_settings(folder, SFT_LORA_TARGET_MODULES=written)
    assert find_targets(load(folder), settings.lora.target_modules).parameters == STACKS


def test_mixtrals_own_names(tiny_model: TinyModel, load: Load) -> None:
    targets = find_targets(load(tiny_model("mixtral")), ["w1", "w2", "w3"])
    assert (targets.modules, targets.parameters) == ((), STACKS)


def test_a_dense_model_gets_every_linear_layer(tiny_model: TinyModel, load: Load) -> None:
    targets = find_targets(load(tiny_model("qwen3")), MODULES.split(","))
    assert set(targets.modules) == set(MODULES.split(","))
    assert targets.parameters == ()


def test_gpt2s_own_names_and_a_refusal_that_lists_them(tiny_model: TinyModel, load: Load) -> None:
    model = load(tiny_model("gpt2"))
    assert find_targets(model, ["c_attn", "c_proj", "c_fc"]).modules == ("c_attn", "c_fc", "c_proj")
    with pytest.raises(InputError, match="c_attn, c_fc, c_proj"):
        find_targets(model, MODULES.split(","))


def test_which_layers_keep_inputs_first(tiny_model: TinyModel, load: Load) -> None:
    assert keeps_inputs_first(load(tiny_model("gpt2")), ["c_attn"])
    assert not keeps_inputs_first(load(tiny_model("gpt2")), ["q_proj"])
    assert not keeps_inputs_first(load(tiny_model("qwen3")), MODULES.split(","))


@pytest.mark.parametrize(("family", "block"), [("qwen3_moe_mixed", "mlp"), ("qwen2_moe", "shared_expert")])
def test_dense_layers_beside_experts_are_reached_by_their_weights(
    family: str, block: str, tiny_model: TinyModel, load: Load
) -> None:
    """As modules PEFT would take them for experts and leave the dense layers out, without a word."""
    targets = find_targets(load(tiny_model(family)), MODULES.split(","))
    assert targets.modules == ATTENTION
    dense = tuple(f"{block}.{name}.weight" for name in ("down_proj", "gate_proj", "up_proj"))
    assert targets.parameters == STACKS + dense


@pytest.mark.parametrize(
    "family", ["qwen3", "gemma2", "qwen3_moe", "qwen2_moe", "mixtral", "qwen3_moe_mixed"]
)
def test_all_linear_is_every_layer_but_head_and_routers(
    family: str, tiny_model: TinyModel, load: Load
) -> None:
    model = load(tiny_model(family))
    assert find_targets(model, ["all-linear"]) == find_targets(model, MODULES.split(","))


@pytest.mark.parametrize(("half", "missing"), [("gate_proj", "up_proj"), ("w3", "w1")])
def test_half_of_a_fused_pair_is_refused(half: str, missing: str, tiny_model: TinyModel, load: Load) -> None:
    with pytest.raises(InputError) as caught:
        find_targets(load(tiny_model("mixtral")), ["q_proj", half])
    (problem,) = caught.value.problems
    assert problem.key == "SFT_LORA_TARGET_MODULES"
    assert "gate_up_proj" in problem.expected
    assert problem.remedy == f"add {missing}, or remove {half}"


def test_half_of_a_pair_is_fine_in_a_dense_model(tiny_model: TinyModel, load: Load) -> None:
    assert find_targets(load(tiny_model("qwen3")), ["gate_proj"]).modules == ("gate_proj",)


def test_a_name_that_matches_nothing_is_refused_with_the_names_there_are(
    tiny_model: TinyModel, load: Load
) -> None:
    with pytest.raises(InputError) as caught:
        find_targets(load(tiny_model("qwen3_moe")), ["q_proj", "c_attn", "fc1"])
    (problem,) = caught.value.problems
    assert problem.value == "c_attn,fc1"
    for name in (*ATTENTION, *STACKS):
        assert name in problem.expected
    assert "lm_head" not in problem.expected


def test_router_only_when_asked(tiny_model: TinyModel, load: Load) -> None:
    for family in ("qwen3_moe", "mixtral"):
        model = load(tiny_model(family))
        assert find_targets(model, ["q_proj"]).parameters == ()
        for name in ("router", "gate"):
            assert find_targets(model, ["q_proj", name]).parameters == ("mlp.gate.weight",)


def test_a_dense_model_has_no_router(tiny_model: TinyModel, load: Load) -> None:
    with pytest.raises(InputError, match="router"):
        find_targets(load(tiny_model("qwen3")), ["q_proj", "router"])
