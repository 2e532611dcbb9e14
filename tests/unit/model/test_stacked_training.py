"""Training with the adapters of earlier stages beside the weights (SFT_MERGE_MODE=stack): as over a merged
base."""

import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict

from lib.model.adapter import attach_lora, load_adapter
from lib.model.expert_lora.plug_in import IMPLEMENTATION, split_wrappers
from lib.model.frozen_factors import all_beside
from lib.model.merged_weights import temporarily_merged
from lib.model.targets import find_targets
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
    ("gpt2", [(("c_attn", "c_proj", "c_fc"), {}), (("c_proj",), {"rank": 7})]),
    ("qwen3", [(ALL, {}), (("o_proj",), {"rank": 7}), (ALL, {"rank": 1, "alpha": 5.0})]),
]
OWN_NAMES = {
    "gpt_oss": (*ATTENTION, "gate_up_proj", "down_proj"),
    "gpt2": ("c_attn", "c_proj", "c_fc"),
}
Load = Callable[..., Any]


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
    requested = OWN_NAMES.get(family, ALL)
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


@pytest.mark.parametrize("family", ["qwen3_moe", "qwen3", "gpt_oss", "gpt2"])
def test_folded_into_the_weights_for_a_while(
    family: str, tiny_model: Any, make_adapter: Any, load_as: Load, new_adapter: Any, logits: Any
) -> None:
    base = tiny_model(family)
    requested = OWN_NAMES.get(family, ALL)
    plain = load_as("stack", base, [make_adapter(base, stage, requested) for stage in (1, 2)])
    for model in (plain, new_adapter(plain, requested)):
        expected = logits(model)
        weights = {name: p.detach().clone() for name, p in model.named_parameters()}
        with temporarily_merged(model):
            assert_close(logits(model), expected)
            if family in {"qwen3_moe", "gpt_oss"}:
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
