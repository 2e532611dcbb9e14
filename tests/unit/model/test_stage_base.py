"""The adapters of earlier stages beside the weights (SFT_MERGE_MODE=stack): the model that merging them
gives."""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict

from lib.model.adapter import attach_lora, load_adapter
from lib.model.base import ComputeChoice
from lib.model.expert_lora.plug_in import IMPLEMENTATION, split_wrappers
from lib.model.frozen_factors import all_beside
from lib.model.merged_weights import temporarily_merged
from lib.model.stage_base import load_stage_base, obtain_stage_base
from lib.model.targets import find_targets
from lib.settings import InputError
from tests.unit.model.expert_checkpoints import edit

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
EXPERTS = ("gate_proj", "up_proj", "down_proj")
ALL = (*ATTENTION, *EXPERTS)
FP32_ROUNDING = 2e-5
IDS = torch.arange(3, 27).reshape(2, 12)
Options = dict[str, Any]
CASES: list[tuple[str, list[tuple[Any, Options]]]] = [
    ("qwen3_moe", [(ALL, {}), (ALL, {"rank": 3, "alpha": 7.0})]),
    ("qwen3_moe", [(ATTENTION, {}), (EXPERTS, {"rank": 2}), (("down_proj",), {"alpha": 1.0})]),
    ("qwen3_moe", [((*ALL, "router"), {}), (ATTENTION, {})]),
    ("qwen3_moe_mixed", [(ALL, {}), (EXPERTS, {"rank": 8})]),
    ("qwen2_moe", [(EXPERTS, {}), (ALL, {"alpha": 6.0})]),
    ("mixtral", [((*ATTENTION, "w1", "w2", "w3"), {}), (("w2",), {"rank": 2})]),
    ("gpt_oss", [((*ATTENTION, "gate_up_proj", "down_proj"), {}), (ATTENTION, {})]),
    ("qwen3", [(ALL, {}), (("o_proj",), {"rank": 7}), (ALL, {"rank": 1, "alpha": 5.0})]),
]
Load = Callable[..., Any]


@pytest.fixture
def load_as(stage_settings: Callable[..., Any]) -> Load:
    """load_as("stack", base, adapters): the model that a stage trains on, as the mode makes it."""

    def make(mode: str, base: Path, adapters: list[Path], dtype: torch.dtype = torch.float32) -> Any:
        settings = stage_settings(base, 9, SFT_MERGE_MODE=mode)
        found = obtain_stage_base(settings, adapters, key=f"{base}{adapters}")
        assert found.mode == mode
        return load_stage_base(found, settings.model, ComputeChoice(dtype, "eager", ""), on_gpu=False)[0]

    return make


@pytest.fixture
def two_stages(tiny_model: Any, make_adapter: Any) -> tuple[Path, list[Path]]:
    base = tiny_model("qwen3_moe")
    return base, [make_adapter(base, stage, ALL) for stage in (1, 2)]


@pytest.fixture
def new_adapter(lora: Callable[..., Any]) -> Callable[..., Any]:
    """new_adapter(model, ALL, dropout=0.1): a LoRA on the model that does something, in training mode."""

    def make(model: Any, requested: Any = ALL, **options: Any) -> Any:
        adapted, _ = attach_lora(model, find_targets(model, requested), lora(**options), seed=3)
        generator = torch.Generator().manual_seed(8)
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        return adapted.train()

    return make


def gradients(model: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(input_ids=IDS, labels=IDS).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_close(found: torch.Tensor, wanted: torch.Tensor, tolerance: float = FP32_ROUNDING) -> None:
    assert (found - wanted).abs().max() < tolerance * wanted.abs().max()


@pytest.mark.parametrize(("family", "stages"), CASES)
def test_logits_and_gradients_are_those_of_the_merged_base(
    family: str, stages: Any, tiny_model: Any, make_adapter: Any, load_as: Load, new_adapter: Any, logits: Any
) -> None:
    base = tiny_model(family)
    adapters = [make_adapter(base, n, requested, **lora) for n, (requested, lora) in enumerate(stages, 1)]
    merged, stacked = (load_as(mode, base, adapters) for mode in ("merge", "stack"))
    exact = logits(merged)
    assert_close(logits(stacked), exact)
    for count in range(len(adapters)):
        fewer = logits(load_as("stack", base, adapters[:count]))
        assert (fewer - exact).abs().max() > 100 * FP32_ROUNDING * exact.abs().max()
    requested = (*ATTENTION, "gate_up_proj", "down_proj") if family == "gpt_oss" else ALL
    wanted, found = (gradients(new_adapter(model, requested)) for model in (merged, stacked))
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() < 1e-4 * gradient.norm(), name


@pytest.mark.parametrize("requested", [ATTENTION, ("q_proj", "down_proj"), (*ALL, "router")])
def test_the_new_stage_may_train_other_weights(
    requested: Any, two_stages: Any, load_as: Load, new_adapter: Any, logits: Any
) -> None:
    """Attention alone: blocks of experts without any adapter; half a block: one that PEFT must compute."""
    merged, stacked = (new_adapter(load_as(mode, *two_stages), requested) for mode in ("merge", "stack"))
    wanted, found = gradients(merged), gradients(stacked)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() < 1e-4 * gradient.norm(), name
    assert_close(logits(stacked), logits(merged))


def test_where_peft_computes_the_experts_it_is_said(
    two_stages: Any, load_as: Load, lora: Callable[..., Any]
) -> None:
    model = load_as("stack", *two_stages)
    _, census = attach_lora(model, find_targets(model, ("q_proj", "down_proj")), lora(), seed=3)
    assert "added to their weights in float32, not kept beside them" in census.notices[-1]


@pytest.mark.parametrize(
    ("change", "times"),
    [({"use_rslora": True, "lora_alpha": 6}, 6 / math.sqrt(4) / 2), ({"alpha_pattern": {"q_proj": 32}}, 4)],
)
def test_the_scaling_is_the_adapters_own(
    change: Options, times: float, two_stages: Any, load_as: Load, logits: Any, tmp_path: Path
) -> None:
    base, (first, second) = two_stages
    changed = edit(second, tmp_path / "changed", lambda _, config: config.update(change))
    merged, stacked = (load_as(mode, base, [first, changed]) for mode in ("merge", "stack"))
    assert_close(logits(stacked), logits(merged))
    weight = "model.layers.0.self_attn.q_proj"
    alone = [
        next(f for m, _, f in all_beside(model) if m is model.get_submodule(weight)).update()
        for model in (load_as("stack", base, [changed]), load_as("stack", base, [second]))
    ]
    torch.testing.assert_close(alone[0], times * alone[1])


def test_dropout_acts_on_the_new_adapter_alone(two_stages: Any, load_as: Load, new_adapter: Any) -> None:
    """With its B at zero it adds nothing, whatever is dropped; what stands beside the weights stays whole."""
    model = new_adapter(load_as("stack", *two_stages), dropout=0.5)
    torch.manual_seed(1)
    first = model(input_ids=IDS).logits
    assert not torch.equal(model(input_ids=IDS).logits, first)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.zero_()
    with torch.no_grad():
        dropped, whole = model(input_ids=IDS).logits, model.eval()(input_ids=IDS).logits
    assert_close(dropped, whole)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_under_dropout_are_those_of_the_merged_base(
    dropout: float, two_stages: Any, load_as: Load, new_adapter: Any
) -> None:
    """The same seed draws the same masks in both."""
    found = []
    for mode in ("merge", "stack"):
        model = new_adapter(load_as(mode, *two_stages), dropout=dropout)
        torch.manual_seed(5)
        found.append(gradients(model))
    for name, wanted in found[0].items():
        assert (found[1][name] - wanted).norm() < 1e-4 * wanted.norm(), name


def test_only_the_new_adapter_is_trained_counted_and_saved(
    two_stages: Any, load_as: Load, new_adapter: Any, lora: Callable[..., Any]
) -> None:
    models = [load_as(mode, *two_stages) for mode in ("merge", "stack")]
    censuses = [attach_lora(model, find_targets(model, ALL), lora(), seed=3) for model in deepcopy(models)]
    assert censuses[0][1] == censuses[1][1]
    merged, stacked = map(new_adapter, models)
    names = [[name for name, p in model.named_parameters() if p.requires_grad] for model in (merged, stacked)]
    assert names[0] == names[1]
    states = [model.state_dict() for model in (merged, stacked)]
    assert states[0].keys() == states[1].keys()
    assert get_peft_model_state_dict(merged).keys() == get_peft_model_state_dict(stacked).keys()

    factors = {id(f): (f.a[:, : f.rank].clone(), f.b[: f.rank].clone()) for *_, f in all_beside(stacked)}
    assert len(factors) == 2 * (len(ATTENTION) + 2)
    optimizer = torch.optim.AdamW([p for p in stacked.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        gradients(stacked)
        optimizer.step()
    for *_, f in all_beside(stacked):
        assert torch.equal(f.a[:, : f.rank], factors[id(f)][0])
        assert torch.equal(f.b[: f.rank], factors[id(f)][1])


def test_without_the_new_adapter_it_is_the_base_of_the_stage(
    two_stages: Any, load_as: Load, new_adapter: Any, logits: Any
) -> None:
    """Also after a pass that put the trained factors beside the frozen ones."""
    merged, stacked = (load_as(mode, *two_stages) for mode in ("merge", "stack"))
    exact = logits(merged)
    model = new_adapter(stacked)
    gradients(model)
    with model.disable_adapter():
        assert_close(logits(model), exact)
    assert not torch.allclose(logits(model), exact, atol=1e-2)


@pytest.mark.parametrize("family", ["qwen3_moe", "qwen3", "gpt_oss"])
def test_folded_into_the_weights_for_a_while(
    family: str, tiny_model: Any, make_adapter: Any, load_as: Load, new_adapter: Any, logits: Any
) -> None:
    base = tiny_model(family)
    requested = (*ATTENTION, "gate_up_proj", "down_proj") if family == "gpt_oss" else ALL
    plain = load_as("stack", base, [make_adapter(base, stage, requested) for stage in (1, 2)])
    for model in (plain, new_adapter(plain, requested)):
        expected = logits(model)
        weights = {name: p.detach().clone() for name, p in model.named_parameters()}
        with temporarily_merged(model):
            assert_close(logits(model), expected)
            if family != "qwen3":
                model.set_experts_implementation("eager")
                assert_close(logits(model), expected)
                model.set_experts_implementation(IMPLEMENTATION)
        assert torch.equal(logits(model), expected)
        assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())


def test_what_is_beside_the_experts_is_not_forgotten(two_stages: Any, load_as: Load, logits: Any) -> None:
    model = load_as("stack", *two_stages)
    model.set_experts_implementation("eager")
    with pytest.raises(RuntimeError, match="need the experts implementation 'split_lora', found 'eager'"):
        logits(model)


def test_checkpointing_changes_no_bit(two_stages: Any, load_as: Load, new_adapter: Any) -> None:
    model = new_adapter(load_as("stack", *two_stages), dropout=0.2)
    torch.manual_seed(4)
    plain = gradients(model)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    torch.manual_seed(4)
    again = gradients(model)
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_a_saved_adapter_is_loaded_over_it(
    two_stages: Any, make_adapter: Any, load_as: Load, logits: Any
) -> None:
    """As an evaluation without training does; and by plain PEFT over the merged base."""
    base, adapters = two_stages
    third = make_adapter(base, 3, ALL)
    stacked = load_adapter(load_as("stack", base, adapters), third)
    merged = PeftModel.from_pretrained(load_as("merge", base, adapters), third)
    assert not split_wrappers(stacked)
    assert_close(logits(stacked), logits(merged))
    with temporarily_merged(stacked):
        assert_close(logits(stacked), logits(merged))


def test_in_bf16_nothing_is_rounded_away(
    tiny_model: Any, make_adapter: Any, load_as: Load, logits: Any, tmp_path: Path
) -> None:
    """An update so small that merging loses most of it (0.1 % of the weights): in the number type of the
    weights the stacked model stays closer to the exact one."""
    base = tiny_model("qwen3_moe", dtype="bfloat16")
    small = edit(
        make_adapter(base, 1, ALL, "bf16"), tmp_path / "small", lambda _, c: c.update(lora_alpha=2**-7)
    )
    merged, stacked = (load_as(mode, base, [small]) for mode in ("merge", "stack"))
    untouched = logits(load_as("stack", base, []))
    effect = logits(stacked) - untouched
    lost = logits(merged) - untouched - effect
    assert lost.norm() > 0.3 * effect.norm()
    half = load_as("stack", base, [small], torch.bfloat16)
    kept = {id(f): f.update() for *_, f in all_beside(half)}
    whole = [f.update() for *_, f in all_beside(stacked)]
    for found, wanted in zip(kept.values(), whole, strict=True):
        assert (found - wanted).norm() < 0.01 * wanted.norm()
    assert logits(half).isfinite().all()


def test_a_router_in_bf16_is_rounded_and_that_is_said(
    tiny_model: Any, make_adapter: Any, stage_settings: Any
) -> None:
    base = tiny_model("qwen3_moe", dtype="bfloat16")
    settings = stage_settings(base, 9, SFT_MERGE_MODE="stack")
    found = obtain_stage_base(settings, [make_adapter(base, 1, (*ALL, "router"))], key="k")
    assert found.notices == ()
    for dtype, notices in ((torch.bfloat16, 1), (torch.float32, 0)):
        compute = ComputeChoice(dtype, "eager", "")
        _, base_of_stage = load_stage_base(found, settings.model, compute, on_gpu=False)
        assert len(base_of_stage.notices) == notices
        assert all("model.layers.0.mlp.gate.weight (2 such weights)" in n for n in base_of_stage.notices)


def test_no_copy_is_made_and_the_description_says_what_stands_where(
    two_stages: Any, stage_settings: Any
) -> None:
    base, adapters = two_stages
    settings = stage_settings(base, 3, SFT_MERGE_MODE="stack")
    found = obtain_stage_base(settings, adapters, key="k")
    assert not settings.merged_base_dir.exists()
    assert (found.path, found.merged, found.proof) == (str(base), False, None)
    assert found.stacked is not None
    assert found.stacked.folders == tuple(map(str, adapters))
    assert (found.stacked.targets, found.stacked.adapter_tensors_used) == (12, 48)
    assert "what 2 earlier stages added stays beside the weights, unmerged" in found.line()
    assert f"{found.stacked.parameters:,} frozen parameters in 12 targets" in found.line()
    again = obtain_stage_base(replace(settings), adapters, key="k", mode="merge")
    assert again.merged
    assert obtain_stage_base(settings, [], key="k").stacked is None


@pytest.mark.parametrize("change", ["zero", "infinite", "extra", "shape", "none"])
def test_what_a_merge_refuses_is_refused(change: str, two_stages: Any, load_as: Load, tmp_path: Path) -> None:
    base, (first, second) = two_stages

    def damage(tensors: dict[str, Any], config: dict[str, Any]) -> None:
        name = max(tensors)
        if change == "zero":
            tensors[name].zero_()
        elif change == "infinite":
            tensors[name][0, 0] = math.inf
        elif change == "extra":
            tensors["base_model.model.model.left_over.weight"] = torch.ones(2, 2)
        elif change == "shape":
            tensors[name] = tensors[name][:1].contiguous()

    damaged = edit(second, tmp_path / "damaged", damage)
    if change == "none":
        load_as("stack", base, [first, damaged])
        return
    with pytest.raises(InputError, match="damaged"):
        load_as("stack", base, [first, damaged])
