"""The base that a stage gets with SFT_MERGE_MODE=stack: what it is, what is said of it, what is refused."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lib.model.base import ComputeChoice
from lib.model.frozen_factors import all_beside
from lib.model.stage_base import load_stage_base, obtain_stage_base
from lib.settings import InputError
from tests.unit.model.expert_checkpoints import edit

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Load = Callable[..., Any]


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
    half = load_as("stack", base, [small], "bfloat16")
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
    found = obtain_stage_base(
        settings.model,
        [make_adapter(base, 1, (*ALL, "router"))],
        settings.merged_base_dir,
        key="k",
        mode=settings.model.merge_mode,
    )
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
    found = obtain_stage_base(
        settings.model, adapters, settings.merged_base_dir, key="k", mode=settings.model.merge_mode
    )
    assert not settings.merged_base_dir.exists()
    assert (found.path, found.merged, found.proof) == (str(base), False, None)
    assert found.stacked is not None
    assert found.stacked.folders == tuple(map(str, adapters))
    assert (found.stacked.targets, found.stacked.adapter_tensors_used) == (12, 48)
    assert "what 2 earlier stages added stays beside the weights, unmerged" in found.line()
    assert f"{found.stacked.parameters:,} frozen parameters in 12 targets" in found.line()
    again = obtain_stage_base(settings.model, adapters, settings.merged_base_dir, key="k", mode="merge")
    assert again.merged
    assert (
        obtain_stage_base(
            settings.model, [], settings.merged_base_dir, key="k", mode=settings.model.merge_mode
        ).stacked
        is None
    )


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
