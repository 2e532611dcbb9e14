"""Keys that are fine alone and wrong, or without effect, together."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lib.settings import Problem, StageSettings

Load = Callable[..., StageSettings]
Refused = Callable[..., tuple[Problem, ...]]


@pytest.mark.parametrize(
    ("lines", "key", "remedy"),
    [
        ("SFT_USE_UPSAMPLING=1\n", "SFT_USE_UPSAMPLING", "SFT_UPSAMPLE_RULES='"),
        ("SFT_MIN_LR_RATIO=0.1\n", "SFT_MIN_LR_RATIO", "SFT_LR_SCHEDULER=cosine_with_min_lr"),
        ("SFT_MERGE_MODE=stack\nSFT_QUANTIZATION=nf4\n", "SFT_MERGE_MODE", "into the unquantised weights"),
        ("SFT_LORA_TARGET_MODULES=all-linear,q_proj\n", "SFT_LORA_TARGET_MODULES", "=all-linear, or"),
        (
            "SFT_EARLY_STOPPING_PATIENCE=2\nSFT_VAL_RATIO=0\n",
            "SFT_EARLY_STOPPING_PATIENCE",
            "SFT_VAL_RATIO above 0",
        ),
        ("SFT_EARLY_STOPPING_PATIENCE=2\nSFT_EVAL_STEPS=30\n", "SFT_SAVE_STEPS", "SFT_SAVE_STEPS=120"),
        ("SFT_VAL_RATIO=0\nSFT_GEN_EVAL_SAMPLES=50\n", "SFT_GEN_EVAL_SAMPLES", "SFT_GEN_EVAL_SAMPLES=0"),
        (
            "SFT_PER_DEVICE_TRAIN_BS=auto\nSFT_GLOBAL_BATCH_SIZE=16\nSFT_GRAD_ACCUM=4\n",
            "SFT_GRAD_ACCUM",
            "--set SFT_GRAD_ACCUM=",
        ),
        (
            "SFT_MIX_WEIGHTS=cap\nSFT_DATASET_MIX_TOTAL_SIZE=9\n",
            "SFT_DATASET_MIX_TOTAL_SIZE",
            "SFT_MIX_WEIGHTS=share",
        ),
        ("SFT_PACKING=1\nSFT_GROUP_BY_LENGTH=1\n", "SFT_GROUP_BY_LENGTH", "SFT_PACKING=0"),
        ("SFT_PACKING=1\nSFT_ORDER=length\n", "SFT_ORDER", "SFT_PACKING=0"),
        ("SFT_DATASET_STREAMING=1\nSFT_CACHE_DIR=off\n", "SFT_DATASET_STREAMING", "name a folder"),
        ("SFT_GROUP_BY_LENGTH=1\nSFT_ORDER=length\n", "SFT_GROUP_BY_LENGTH", "SFT_ORDER=shuffled"),
    ],
)
def test_contradictions_are_refused(refused: Refused, lines: str, key: str, remedy: str) -> None:
    (problem,) = refused(lines)
    assert problem.key == key
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    "lines",
    [
        """SFT_USE_UPSAMPLING=1\nSFT_UPSAMPLE_RULES='{"toml": 2}'\n""",
        "SFT_MIN_LR_RATIO=0.1\nSFT_LR_SCHEDULER=cosine_with_min_lr\n",
        "SFT_EARLY_STOPPING_PATIENCE=2\nSFT_EVAL_STEPS=50\n",
        "SFT_EVAL_STEPS=30\n",
        "SFT_VAL_RATIO=0\nSFT_GEN_EVAL_SAMPLES=50\nSFT_GEN_EVAL_DATASET_ID=held_out.jsonl\n",
        "SFT_VAL_RATIO=0\nSFT_GEN_EVAL_SAMPLES=0\n",
        "SFT_LR_SCHEDULER=constant\n",
        "SFT_PACKING=1\n",
        "SFT_GROUP_BY_LENGTH=1\n",
        "SFT_DATASET_MIX_TOTAL_SIZE=10\n",
        "SFT_PER_DEVICE_TRAIN_BS=auto\nSFT_GRAD_ACCUM=4\n",
        "SFT_PER_DEVICE_TRAIN_BS=auto\nSFT_GLOBAL_BATCH_SIZE=16\n",
    ],
)
def test_what_fits_together_loads_without_a_word(load: Load, lines: str) -> None:
    assert load(lines).notices == ()


def test_the_origin_of_a_contradiction_is_the_line_of_the_key(refused: Refused) -> None:
    (from_file,) = refused("SFT_USE_UPSAMPLING=1\n")
    (from_default,) = refused("SFT_EVAL_STEPS=30\nSFT_EARLY_STOPPING_PATIENCE=1\n")
    assert from_file.where.endswith("stage1.env:4")
    assert from_default.where.endswith("stage1.env")
    assert from_default.value == "100"


def test_contradictions_come_together_with_wrong_values(refused: Refused) -> None:
    problems = refused("SFT_USE_UPSAMPLING=1\nSFT_LR=fast\n")
    assert {problem.key for problem in problems} == {"SFT_LR", "SFT_USE_UPSAMPLING"}


def test_a_wrong_value_does_not_also_count_as_a_contradiction(refused: Refused) -> None:
    (problem,) = refused("SFT_USE_UPSAMPLING=1\nSFT_UPSAMPLE_RULES='{\"toml\": 0}'\n")
    assert problem.key == "SFT_UPSAMPLE_RULES"


@pytest.mark.parametrize(
    ("lines", "notice"),
    [
        (
            """SFT_UPSAMPLE_RULES='{"toml": 2}'\n""",
            "SFT_UPSAMPLE_RULES has no effect with SFT_USE_UPSAMPLING=0",
        ),
        (
            "SFT_LR_SCHEDULER=constant\nSFT_WARMUP_RATIO=0.1\n",
            "SFT_WARMUP_RATIO has no effect with SFT_LR_SCHEDULER=constant",
        ),
        ("SFT_VAL_RATIO=0\n", "No evaluation by generation"),
        ("SFT_ORDER_PACING=root\n", "SFT_ORDER_PACING has no effect with SFT_ORDER=shuffled"),
        ("SFT_MIX_WEIGHTS=cap\n", "SFT_MIX_WEIGHTS has no effect with data sets without weights"),
        (
            'SFT_DATASET_MIX=\'[{"id": "a"}, {"id": "a", "weight": 2}]\'\n',
            "[WARNING] Data set a (split train) is named 2 times in the mix",
        ),
    ],
)
def test_keys_without_effect_are_said(load: Load, lines: str, notice: str) -> None:
    (said,) = load(lines).notices
    assert notice in said


def test_a_deepspeed_configuration_without_deepspeed(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text("{}")
    (problem,) = refused(f"SFT_ZERO_STAGE=0\nSFT_DEEPSPEED_CONFIG={tmp_path / 'own.json'}\n")
    assert (problem.key, problem.value) == ("SFT_ZERO_STAGE", "0")


@pytest.mark.parametrize("text", ["AUTO", "0", "automatic", "2.5"])
def test_rows_are_auto_or_a_number(refused: Refused, text: str) -> None:
    (problem,) = refused(f"SFT_PER_DEVICE_TRAIN_BS={text}\n")
    assert problem.expected == "auto or a whole number, at least 1"
