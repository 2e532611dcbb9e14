"""The base that stage 3 trained on is the base with the adapters of stages 1 and 2, and nothing else.

The reference is built here, in fp32, from each adapter alone on the untouched base:
W = W0 + (merge of adapter 1 - W0) + (merge of adapter 2 - W0).
"""

from pathlib import Path

import pytest
import torch
from model_distance import SHARE_OF_EFFECT, distance, load, logits
from peft import PeftModel
from tiny_curriculum import Curriculum
from transformers import PreTrainedModel

# A bf16 number has 8 significant bits: rounding to nearest moves it by at most 2^-8 of itself.
BF16_ROUNDING = 2.0**-8
# Two ways to sum in fp32 may differ by a few units of 2^-24, and only where that tips a rounding does a
# weight differ, then by one bf16 step. Models that agree so far differ by far less than this in their logits.
FP32_NOISE = 1e-3


def update(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """What the adapter adds to every weight of the base, in fp32."""
    before = load(base).state_dict()
    after = PeftModel.from_pretrained(load(base), adapter).merge_and_unload().state_dict()
    return {name: after[name] - before[name] for name in before}


@pytest.fixture(scope="module")
def updates(trained: Curriculum, tiny_base: Path) -> list[dict[str, torch.Tensor]]:
    return [update(tiny_base, trained.stage_dir(stage)) for stage in (1, 2)]


@pytest.fixture(scope="module")
def reference(updates: list[dict[str, torch.Tensor]], tiny_base: Path) -> PreTrainedModel:
    """Base + both adapters in fp32, never rounded."""
    model = load(tiny_base)
    weights = {name: weight + sum(u[name] for u in updates) for name, weight in model.state_dict().items()}
    model.load_state_dict(weights)
    return model


@pytest.fixture(scope="module")
def merged(trained: Curriculum) -> PreTrainedModel:
    return load(trained.merged_base(3))


def test_every_weight_is_the_sum_rounded_once(merged: PreTrainedModel, reference: PreTrainedModel) -> None:
    exact = reference.state_dict()
    for name, weight in merged.state_dict().items():
        allowed = BF16_ROUNDING * exact[name].abs() + 1e-6
        assert ((weight - exact[name]).abs() <= allowed).all(), name


def test_attention_and_experts_moved_and_the_rest_did_not(merged: PreTrainedModel, tiny_base: Path) -> None:
    before = load(tiny_base).state_dict()
    for name, weight in merged.state_dict().items():
        is_target = "_proj" in name
        assert (weight != before[name]).any() == is_target, name


def test_logits_are_those_of_the_base_with_both_adapters(
    merged: PreTrainedModel, reference: PreTrainedModel, tiny_base: Path
) -> None:
    rounded = load(tiny_base)
    rounded.load_state_dict({name: w.bfloat16().float() for name, w in reference.state_dict().items()})
    assert (logits(merged) - logits(rounded)).abs().max() < FP32_NOISE
    effect = distance(load(tiny_base), reference)
    assert distance(merged, reference) < SHARE_OF_EFFECT * effect


def test_the_adapter_of_stage_2_goes_on_top_of_stage_1_unmerged(
    trained: Curriculum, updates: list[dict[str, torch.Tensor]], merged: PreTrainedModel, tiny_base: Path
) -> None:
    """The same by another way: adapter 2 runs unmerged over the base with adapter 1."""
    model = load(tiny_base)
    model.load_state_dict({name: w + updates[0][name] for name, w in model.state_dict().items()})
    both = PeftModel.from_pretrained(model, trained.stage_dir(2))
    assert distance(merged, both) < SHARE_OF_EFFECT * distance(load(tiny_base), both)


@pytest.mark.parametrize("alone", [1, 2])
def test_logits_are_not_those_of_one_adapter_alone(
    trained: Curriculum, merged: PreTrainedModel, reference: PreTrainedModel, tiny_base: Path, alone: int
) -> None:
    only = PeftModel.from_pretrained(load(tiny_base), trained.stage_dir(alone))
    assert distance(merged, only) > 10 * distance(merged, reference)
