import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.settings import InputError, MixEntry

CONFIG = """
model_name_or_path: Qwen/Qwen3-4B-Instruct-2507
stage: sft
finetuning_type: lora
lora_target: all
dataset: 変換, more
template: qwen3
cutoff_len: 2048
output_dir: saves/qwen3/lora
learning_rate: 1.0e-4
num_train_epochs: 3.0
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
lr_scheduler_type: cosine
warmup_ratio: 0.1
"""
INFO = {
    "変換": {
        "file_name": "構造.jsonl",
        "columns": {"prompt": "質問", "query": "input", "response": "output"},
    },
    "more": {"hf_hub_url": "me/more", "formatting": "sharegpt", "split": "part", "subset": "ja"},
    "held": {"file_name": "held.jsonl"},
}
Import = Callable[..., Any]


@pytest.fixture
def catalogue(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/dataset_info.json").write_text(json.dumps(INFO, ensure_ascii=False), encoding="utf-8")


@pytest.mark.usefixtures("catalogue")
def test_a_whole_configuration(imported: Import) -> None:
    stage = imported(CONFIG + "bf16: true\nquantization_bit: 4\nmax_samples: 1000\npacking: true\n")
    settings = stage.settings
    assert settings.data.mix == (
        MixEntry("data/構造.jsonl", 1.0, "train[:1000]"),
        MixEntry("me/more", 1.0, "part[:1000]"),
    )
    assert settings.data.mix_weights == "multiplier"
    assert settings.data.packing
    assert "do not see each other" in stage.differs("SFT_PACKING")
    assert (settings.lora.rank, settings.lora.alpha, settings.lora.dropout) == (8, 16, 0)
    assert settings.lora.target_modules == ("all-linear",)
    assert "experts" in stage.differs("SFT_LORA_TARGET_MODULES")
    assert "answer may lose its end" in stage.differs("SFT_MAX_SEQ_LEN")
    assert settings.model.quantization == "nf4-double"
    assert (settings.training.epochs, settings.training.grad_accum) == (3, 8)
    assert settings.data.val_ratio == 0
    advice = stage.advice()
    assert list(advice) == ["変換.columns.prompt", "more.subset"]
    assert advice["変換.columns.prompt"] == "rename the column 質問 to instruction"


@pytest.mark.usefixtures("catalogue")
def test_the_catalogue_is_found_above_the_configuration(
    imported: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    stage = imported(CONFIG, "examples/train_lora/own.yaml")
    assert stage.settings.data.mix[0].id == str(tmp_path / "data/構造.jsonl")


def test_names_without_a_catalogue_stay_and_are_pointed_out(imported: Import) -> None:
    stage = imported(CONFIG)
    assert [entry.id for entry in stage.settings.data.mix] == ["変換", "more"]
    assert "was not found" in stage.advice()["dataset"]


def test_defaults_of_that_trainer_are_written(imported: Import) -> None:
    stage = imported(
        "model_name_or_path: me/base\nfinetuning_type: lora\ndataset: rows\noutput_dir: out\nlora_rank: 32\n"
    )
    training = stage.settings.training
    assert (training.epochs, training.lr, training.per_device_train_bs) == (3, 5e-5, 8)
    assert (training.lr_scheduler, training.warmup_ratio, training.grad_accum) == ("linear", 0, 1)
    assert stage.settings.lora.alpha == 64


@pytest.mark.parametrize(
    ("lines", "key", "value", "marked"),
    [
        ("neat_packing: true", "SFT_PACKING", "1", False),
        ("quantization_bit: 8", "SFT_QUANTIZATION", "none", True),
        ("quantization_bit: 4\ndouble_quantization: false", "SFT_QUANTIZATION", "nf4", False),
        ("flash_attn: fa2", "SFT_ATTENTION", "auto", False),
        ("flash_attn: disabled", "SFT_ATTENTION", "eager", False),
        ("disable_gradient_checkpointing: true", "SFT_GRADIENT_CHECKPOINTING", "0", False),
        ("mask_history: true", "SFT_MASK_COT", "1", True),
        ("val_size: 200", "SFT_VAL_RATIO", "0.05", True),
        ("report_to: [tensorboard]", "SFT_TENSORBOARD", "1", False),
        ("eval_dataset: held", "SFT_GEN_EVAL_DATASET_ID", "held", True),
        ("ddp_timeout: 180000000", "SFT_DDP_TIMEOUT", "180000000", False),
        ("preprocessing_num_workers: 16", "SFT_DATASET_NUM_PROC", "16", False),
        ("save_strategy: epoch", "SFT_SAVE_STEPS", "100", True),
        ("deepspeed: examples/deepspeed/ds_z2_config.json", "SFT_ZERO_STAGE", "2", True),
    ],
)
def test_single_keys(imported: Import, lines: str, key: str, value: str, marked: bool) -> None:
    stage = imported(CONFIG + lines + "\n")
    assert stage.value(key) == value
    assert bool(stage.differs(key)) == marked


def test_tool_calls_are_pointed_out(imported: Import, tmp_path: Path) -> None:
    entry = {"file_name": "rows.json", "formatting": "sharegpt", "columns": {"messages": "conversations"}}
    entry["columns"]["tools"] = "tools"
    (tmp_path / "data").mkdir()
    (tmp_path / "data/dataset_info.json").write_text(json.dumps({"変換": entry}), encoding="utf-8")
    assert "tool calls are not trained" in imported(CONFIG).advice()["変換.columns.tools"]


def test_interleaved_data_sets_have_shares(imported: Import) -> None:
    lines = "mix_strategy: interleave_under\ninterleave_probs: 0.7, 0.3\n"
    data = imported(CONFIG + lines).settings.data
    assert [(entry.id, entry.weight) for entry in data.mix] == [("変換", 0.7), ("more", 0.3)]
    assert (data.mix_weights, data.mix_exhausted) == ("share", "stop")


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ("stage: dpo", "stage"),
        ("finetuning_type: full", "finetuning_type"),
        ("mix_strategy: interleave_over\ninterleave_probs: many, 1", "interleave_probs"),
    ],
)
def test_what_cannot_be_said_here_is_refused(imported: Import, lines: str, key: str) -> None:
    config = "".join(line + "\n" for line in CONFIG.splitlines() if line.partition(":")[0] != key)
    with pytest.raises(InputError) as caught:
        imported(config + lines + "\n")
    assert key in [problem.key for problem in caught.value.problems]
