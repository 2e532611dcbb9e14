from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TinyModel = Callable[..., Path]
Attach = Callable[..., Any]
RANK, LAYERS, HIDDEN = 4, 2, 32
QUERY, KEY_VALUE = 32, 16
ATTENTION = RANK * LAYERS * (2 * (HIDDEN + QUERY) + 2 * (HIDDEN + KEY_VALUE))


def experts(intermediate: int, layers: int = LAYERS) -> int:
    """Every expert has its own factors; gate and up are one tensor with twice the outputs."""
    gate_up = HIDDEN + 2 * intermediate
    down = intermediate + HIDDEN
    return RANK * layers * 4 * (gate_up + down)


def dense(intermediate: int, layers: int) -> int:
    return RANK * layers * 3 * (HIDDEN + intermediate)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("qwen3_moe", {"experts": experts(16)}),
        ("mixtral", {"experts": experts(24)}),
        ("qwen3_moe_mixed", {"experts": experts(16, layers=1), "dense_mlp": dense(48, layers=1)}),
        ("qwen2_moe", {"experts": experts(16), "dense_mlp": dense(24, layers=2)}),
        ("qwen3", {"dense_mlp": dense(48, layers=2)}),
    ],
)
def test_the_census_equals_hand_arithmetic(
    family: str, expected: dict[str, int], tiny_model: TinyModel, attach: Attach
) -> None:
    model, census = attach(tiny_model(family))
    counted = {"attention": ATTENTION, "experts": 0, "dense_mlp": 0, "router": 0, "other": 0} | expected
    assert {kind: getattr(census, kind) for kind in counted} == counted
    assert census.trainable == sum(counted.values()) == census.to_json()["trainable"]
    assert census.trainable + census.frozen == sum(p.numel() for p in model.parameters())
    assert f"{census.trainable:,} trainable" in census.line()
    assert all(kind.replace("_", " ") in census.line() for kind in expected)


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "qwen3_moe_mixed", "qwen2_moe"])
def test_every_rank_and_scale_is_the_one_asked_for(
    family: str, tiny_model: TinyModel, attach: Attach
) -> None:
    """PEFT's own conversion of expert names would double gate_up's rank."""
    from peft.tuners.lora import LoraLayer

    model, _ = attach(tiny_model(family), rank=3, alpha=12.0)
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    assert {module.r["default"] for _, module in layers} == {3}
    assert {module.scaling["default"] for _, module in layers} == {4.0}
    gate_up = [m for name, m in layers if getattr(m, "parameter_name", "") == "gate_up_proj"]
    assert gate_up
    assert all(m.lora_A["default"].weight.shape == (3 * 4, HIDDEN) for m in gate_up)


def test_the_router_is_trained_when_asked(tiny_model: TinyModel, attach: Attach) -> None:
    _, census = attach(tiny_model("qwen3_moe"), ["q_proj", "router"])
    assert census.router == RANK * LAYERS * (HIDDEN + 4)
    assert census.experts == 0
    assert census.attention == RANK * LAYERS * (HIDDEN + QUERY)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapter_weights_are_fp32_and_the_base_is_frozen(
    dtype: str, tiny_model: TinyModel, attach: Attach, logits: Callable[[Any], Any]
) -> None:
    import torch

    model, _ = attach(tiny_model("qwen3_moe", dtype))
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == ("lora_" in name), name
        if parameter.requires_grad:
            assert parameter.dtype == torch.float32
    out = model(input_ids=torch.tensor([[4, 5, 6, 7]]), labels=torch.tensor([[4, 5, 6, 7]]))
    out.loss.backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, _ in model.named_parameters() if "lora_" in name}


def test_a_bf16_base_gets_fp32_adapters(
    tiny_model: TinyModel, lora: Callable[..., Any], stage_settings: Callable[..., Any]
) -> None:
    import torch

    from lib.model.adapter import attach_lora
    from lib.model.base import ComputeChoice, StageBase, load_base
    from lib.model.targets import find_targets

    folder = str(tiny_model("qwen3_moe"))
    base = StageBase(folder, "", folder, merged=False, reused=False, seconds=0.0)
    model = load_base(base, ComputeChoice(torch.bfloat16, "sdpa", ""), on_gpu=False)
    model, _ = attach_lora(model, find_targets(model, ["q_proj", "gate_proj", "up_proj"]), lora(), seed=1)
    kinds = {(p.requires_grad, p.dtype) for p in model.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "gpt_oss"])
def test_dropout_acts_on_attention_and_experts(family: str, tiny_model: TinyModel, attach: Attach) -> None:
    from peft.tuners.lora import LoraLayer

    model, census = attach(tiny_model(family), dropout=0.25)
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    assert {layer.lora_dropout["default"].p for layer in layers} == {0.25}
    assert census.notices == ()


def test_where_dropout_cannot_act_it_is_said(tiny_model: TinyModel, attach: Attach) -> None:
    """A dense MLP beside experts is adapted as named parameters, which PEFT computes without dropout."""
    from peft.tuners.lora import LoraLayer

    model, census = attach(tiny_model("qwen2_moe"), dropout=0.25)
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    without = [layer for layer in layers if not hasattr(layer.lora_dropout["default"], "p")]
    assert {layer.parameter_name for layer in without} == {"weight"}
    (notice,) = census.notices
    assert f"SFT_LORA_DROPOUT=0.25 does not act on {len(without)} adapters" in notice


def test_a_dense_model_takes_dropout_without_a_notice(tiny_model: TinyModel, attach: Attach) -> None:
    from peft.tuners.lora import LoraLayer

    model, census = attach(tiny_model("qwen3"), dropout=0.25)
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    assert {layer.lora_dropout["default"].p for layer in layers} == {0.25}
    assert census.notices == ()


def test_a_new_adapter_changes_nothing_and_is_seeded(
    tiny_model: TinyModel, attach: Attach, load: Callable[[Path], Any], logits: Callable[[Any], Any]
) -> None:
    import torch

    folder = tiny_model("qwen3_moe")
    first, _ = attach(folder)
    second, _ = attach(folder)
    torch.testing.assert_close(logits(first), logits(load(folder)), atol=1e-5, rtol=1e-5)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
