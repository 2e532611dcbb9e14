"""An expert that has tokens on one rank and none on the other: nobody waits, and its gradient is right."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_curriculum import Curriculum
from tokenizers import Tokenizer

from bench.steered_router import steer

MARK = "z"
STEPS = 6


@pytest.fixture
def steered(tiny_base: Path, tmp_path: Path, new_curriculum: Callable[[Path], Curriculum]) -> Curriculum:
    """Half of the rows have the mark, whose tokens alone go to the second half of the experts."""
    from transformers import AutoModelForCausalLM

    base = shutil.copytree(tiny_base, tmp_path / "steered")
    marked = [
        i
        for token, i in Tokenizer.from_file(str(base / "tokenizer.json")).get_vocab().items()
        if MARK in token
    ]
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    steer(model, marked)
    model.save_pretrained(base)
    curriculum = new_curriculum(tmp_path / "curriculum")
    answers = [f"{number} " + (MARK * 9 if number % 2 else "even") for number in range(40)]
    curriculum.write_rows("rows.jsonl", [{"prompt": "say", "completion": answer} for answer in answers])
    curriculum.set(
        1, SFT_BASE_MODEL=base, SFT_DATASET_ID="rows.jsonl", SFT_LORA_DROPOUT=0, SFT_MASK_COT=0,
        SFT_PER_DEVICE_TRAIN_BS=1, SFT_GRAD_ACCUM=1, SFT_MAX_STEPS=STEPS, SFT_EPOCHS=3, SFT_SAVE_STEPS=STEPS,
        SFT_EVAL_STEPS=STEPS, SFT_GEN_EVAL_SAMPLES=0, SFT_GEN_EVAL_BEFORE=0,
    )  # fmt: skip
    return curriculum


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [2, 0])
def test_two_ranks_with_an_idle_expert_train_as_one(
    steered: Curriculum, zero_stage: int, tmp_path: Path
) -> None:
    """The command is given a few minutes; a rank that waits for another would take them all."""
    alone = steered.copy_to(tmp_path / "alone")
    alone.set(1, SFT_GRAD_ACCUM=2)
    alone.train(1, "--nproc", 1)
    steered.train(1, "--nproc", 2, "--set", f"SFT_ZERO_STAGE={zero_stage}")
    one, two = (load_file(c.stage_dir(1) / "adapter_model.safetensors") for c in (alone, steered))
    experts = [name for name in one if "experts" in name]
    assert experts
    for name in experts:
        assert one[name].float().norm() > 0
        assert (one[name].float() - two[name].float()).norm() < 1e-2 * one[name].float().norm()
