"""The split form inside PEFT: the same model, the same files, PEFT's own forward where it must be."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora.layer import ParamWrapper
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from lib.evaluation.generation import evaluating
from lib.model.expert_lora.plug_in import (
    IMPLEMENTATION,
    SplitForward,
    split_wrappers,
    use_split_expert_lora,
)
from lib.model.merged_weights import temporarily_merged

TinyModel = Callable[..., Path]
FAMILIES = ("qwen3_moe", "mixtral", "qwen2_moe", "qwen3_moe_mixed", "gpt_oss")
IDS = torch.arange(3, 27).reshape(2, 12)


@pytest.fixture
def adapted(tiny_model: TinyModel, attach: Callable[..., Any]) -> Callable[..., Any]:
    """A tiny model whose adapter does something."""

    def make(family: str, **options: Any) -> Any:
        model, _ = attach(tiny_model(family), **options)
        generator = torch.Generator().manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
        return model

    return make


def in_pefts_way(model: Any) -> Any:
    """The model under transformers' default implementation: PEFT builds W + BA."""
    model.get_base_model().set_experts_implementation("grouped_mm")
    return model


def gradients(model: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(input_ids=IDS, labels=IDS).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def outputs(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_are_pefts(family: str, adapted: Callable[..., Any]) -> None:
    model = adapted(family)
    blocks = {name.split(".experts")[0] for name, _ in model.named_parameters() if ".experts." in name}
    assert len(split_wrappers(model)) == 2 * len(blocks)
    ours, our_gradients = outputs(model), gradients(model)
    in_pefts_way(model)
    torch.testing.assert_close(ours, outputs(model), atol=1e-4, rtol=1e-4)
    theirs = gradients(model)
    assert our_gradients.keys() == theirs.keys()
    for name, wanted in theirs.items():
        assert (our_gradients[name] - wanted).norm() < 1e-4 * wanted.norm(), name


@pytest.mark.parametrize("family", ["qwen3_moe", "gpt_oss"])
def test_checkpointing_the_model_changes_no_bit(family: str, adapted: Callable[..., Any]) -> None:
    model = adapted(family, dropout=0.2).train()
    torch.manual_seed(4)
    plain = gradients(model)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    torch.manual_seed(4)
    again = gradients(model)
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "gpt_oss"])
def test_plain_peft_loads_what_was_saved(
    family: str,
    adapted: Callable[..., Any],
    load: Callable[[Path], Any],
    tiny_model: TinyModel,
    tmp_path: Path,
) -> None:
    model = adapted(family).eval()
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(load(tiny_model(family)), str(tmp_path)).eval()
    assert not split_wrappers(loaded)
    torch.testing.assert_close(outputs(loaded), outputs(model), atol=1e-4, rtol=1e-4)
    without = outputs(load(tiny_model(family)).eval())
    assert (outputs(model) - without).abs().max() > 0.05
    assert use_split_expert_lora(loaded) == ()
    assert torch.equal(outputs(loaded), outputs(model))


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "gpt_oss"])
def test_disabled_and_merged_the_base_computes_alone(
    family: str, adapted: Callable[..., Any], load: Callable[[Path], Any], tiny_model: TinyModel
) -> None:
    model = adapted(family).eval()
    expected = outputs(model)
    with model.disable_adapter():
        torch.testing.assert_close(outputs(model), outputs(load(tiny_model(family)).eval()))
    with temporarily_merged(model):
        torch.testing.assert_close(outputs(model), expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(outputs(model), expected)
    merged = deepcopy(model).merge_and_unload()
    torch.testing.assert_close(outputs(merged), expected, atol=1e-4, rtol=1e-4)


def test_it_generates_and_evaluates(adapted: Callable[..., Any]) -> None:
    model = adapted("qwen3_moe").eval()
    limits = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    ours = model.generate(input_ids=IDS, **limits)
    with evaluating(model):
        assert model.config._experts_implementation == "eager"
        assert torch.equal(model.generate(input_ids=IDS, **limits), ours)
    assert model.config._experts_implementation == IMPLEMENTATION


def test_a_copy_is_a_model_of_its_own(adapted: Callable[..., Any]) -> None:
    model = adapted("qwen3_moe").eval()
    copy, expected = deepcopy(model), outputs(model)
    for wrapper in split_wrappers(model):
        wrapper.lora_B["default"].weight.data.zero_()
    assert torch.equal(outputs(copy), expected)
    assert not torch.equal(outputs(model), expected)


def test_several_active_adapters_are_left_to_peft(adapted: Callable[..., Any]) -> None:
    model = adapted("qwen3_moe").eval()
    one = outputs(model)
    model.add_adapter("second", model.peft_config["default"])
    for name, parameter in model.named_parameters():
        if "lora_B.second" in name:
            parameter.data.normal_(std=0.1)
    model.base_model.set_adapter(["default", "second"])
    both = outputs(model)
    assert not torch.allclose(both, one, atol=1e-3)
    in_pefts_way(model)
    torch.testing.assert_close(both, outputs(model), atol=1e-4, rtol=1e-4)


def test_half_a_block_is_refused_with_the_reason(tiny_model: TinyModel, attach: Callable[..., Any]) -> None:
    model, census = attach(tiny_model("qwen3_moe"), ["q_proj", "down_proj"], dropout=0.1)
    assert not split_wrappers(model)
    computed, dropout = census.notices
    assert "only down_proj of Qwen3MoeExperts is adapted" in computed
    assert "SFT_LORA_DROPOUT=0.1 does not act on 2 adapters" in dropout
    assert outputs(model).isfinite().all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"has_post_expert_norm": True}, "normalises the output"),
        ({"_is_expert_parallel": True}, "several devices"),
        ({"has_gate": False}, "does not dispatch"),
    ],
)
def test_experts_of_another_kind_are_refused_with_the_reason(
    change: dict[str, bool], reason: str, adapted: Callable[..., Any]
) -> None:
    model = adapted("qwen3_moe")
    for module in model.modules():
        if isinstance(module, ParamWrapper):
            vars(module).pop("forward", None)
            vars(module.get_base_layer()).update(change)
    (notice,) = use_split_expert_lora(model)
    assert reason in notice
    assert "Qwen3MoeExperts" in notice
    assert not split_wrappers(model)


def test_a_dense_model_needs_no_notice(adapted: Callable[..., Any]) -> None:
    assert use_split_expert_lora(adapted("qwen3")) == ()


def test_the_implementation_is_registered_by_name(adapted: Callable[..., Any]) -> None:
    model = adapted("qwen3_moe")
    assert IMPLEMENTATION in ALL_EXPERTS_FUNCTIONS
    assert model.config._experts_implementation == IMPLEMENTATION
    forwards = [m.forward for m in model.modules() if isinstance(m, ParamWrapper) and "forward" in vars(m)]
    assert len(forwards) == 2
    assert all(isinstance(forward, SplitForward) for forward in forwards)
