"""Every training key reaches TRL's configuration: each is set to a value that no default has."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lib.settings import StageSettings, TrainingSettings
from lib.training.arguments import machine_remarks, trainer_arguments
from lib.training.sizing.world import World

Stage = Callable[..., StageSettings]
# Settings field -> (key, its text, name in SFTConfig, value there)
EXPECTED: dict[str, tuple[str, str, str, Any]] = {
    "epochs": ("SFT_EPOCHS", "2.5", "num_train_epochs", 2.5),
    "max_steps": ("SFT_MAX_STEPS", "77", "max_steps", 77),
    "per_device_train_bs": ("SFT_PER_DEVICE_TRAIN_BS", "3", "per_device_train_batch_size", 3),
    "per_device_eval_bs": ("SFT_PER_DEVICE_EVAL_BS", "5", "per_device_eval_batch_size", 5),
    "grad_accum": ("SFT_GRAD_ACCUM", "7", "gradient_accumulation_steps", 7),
    "lr": ("SFT_LR", "3.5e-5", "learning_rate", 3.5e-5),
    "lr_scheduler": ("SFT_LR_SCHEDULER", "cosine_with_min_lr", "lr_scheduler_type", "cosine_with_min_lr"),
    "min_lr_ratio": ("SFT_MIN_LR_RATIO", "0.15", "lr_scheduler_kwargs", {"min_lr_rate": 0.15}),
    "warmup_ratio": ("SFT_WARMUP_RATIO", "0.11", "warmup_steps", 0.11),
    "weight_decay": ("SFT_WEIGHT_DECAY", "0.013", "weight_decay", 0.013),
    "max_grad_norm": ("SFT_MAX_GRAD_NORM", "0.7", "max_grad_norm", 0.7),
    "optimizer": ("SFT_OPTIM", "adafactor", "optim", "adafactor"),
    "logging_steps": ("SFT_LOGGING_STEPS", "6", "logging_steps", 6),
    "eval_steps": ("SFT_EVAL_STEPS", "9", "eval_steps", 9),
    "save_steps": ("SFT_SAVE_STEPS", "18", "save_steps", 18),
    "best_metric": ("SFT_BEST_METRIC", "eval_loss", "metric_for_best_model", "eval_loss"),
}
# Not arguments: two callbacks, the order of the rows, which checkpoints are kept, and the DeepSpeed
# configuration (tested below).
# Global batch and ZeRO stage decide what others become.
ELSEWHERE = {
    "early_stopping_patience",
    "neftune_noise_alpha",
    "save_total_limit",
    "group_by_length",
    "deepspeed_config",
    "global_batch",
    "zero_stage",
    "on_nan",
    "on_spike",
    "ddp_timeout",  # of the machine, and of all groups of processes
    "stall_seconds",
    "on_stall",
    "spike_deviations",
}


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SimpleNamespace]:
    """The arguments handed to SFTConfig, without making one: that would start DeepSpeed."""
    import torch
    import trl

    monkeypatch.setattr(trl, "SFTConfig", SimpleNamespace)

    def make(settings: StageSettings, processes: int = 1, gpus: int = 0, **options: Any) -> SimpleNamespace:
        values = {"dtype": torch.float32, "evaluates": True} | options
        return trainer_arguments(settings, world=World(processes, gpus), **values)  # type: ignore[return-value]

    return make


def test_every_training_key_reaches_the_trainer(stage: Stage) -> None:
    import torch

    assert set(EXPECTED) | ELSEWHERE == {field.name for field in fields(TrainingSettings)}
    settings = stage(**{key: text for key, text, _, _ in EXPECTED.values()}, SFT_SEED=12345)
    made = trainer_arguments(settings, world=World(1, 0), dtype=torch.float32, evaluates=True)
    for field, (_, _, name, value) in EXPECTED.items():
        assert getattr(made, name) == value, field
    assert (made.seed, made.data_seed) == (12345, 12345)
    assert made.output_dir == str(settings.stage_dir)
    assert made.load_best_model_at_end is True
    assert made.save_total_limit is None
    assert made.greater_is_better is False
    assert made.get_warmup_steps(200) == 22
    assert made.max_length is None
    assert made.router_aux_loss_coef == 0.0
    assert list(made.report_to) == []


def test_minus_one_steps_are_off(stage: Stage, given: Callable[..., SimpleNamespace]) -> None:
    made = given(stage())
    assert made.max_steps == -1
    assert made.lr_scheduler_kwargs == {}


def test_without_validation_rows_nothing_is_evaluated(
    stage: Stage, given: Callable[..., SimpleNamespace]
) -> None:
    made = given(stage(SFT_VAL_RATIO=0), evaluates=False)
    assert made.eval_strategy == "no"
    assert made.load_best_model_at_end is False
    assert made.metric_for_best_model is None


def test_the_best_weights_are_kept_only_where_they_are_saved(
    stage: Stage, given: Callable[..., SimpleNamespace]
) -> None:
    assert given(stage(SFT_EVAL_STEPS=5, SFT_SAVE_STEPS=10)).load_best_model_at_end is True
    assert given(stage(SFT_EVAL_STEPS=10, SFT_SAVE_STEPS=5)).load_best_model_at_end is False


def test_deepspeed_wherever_there_is_something_to_shard(
    stage: Stage, given: Callable[..., SimpleNamespace], tmp_path: Path
) -> None:
    assert given(stage()).deepspeed is None
    for processes, gpus in ((2, 0), (1, 1), (8, 8)):
        assert given(stage(), processes, gpus).deepspeed["zero_optimization"]["stage"] == 2
    own = tmp_path / "own.json"
    own.write_text('{"zero_optimization": {"stage": 1}, "mine": true}')
    made = given(stage(SFT_DEEPSPEED_CONFIG=own), 2, 0)
    assert made.deepspeed == {"zero_optimization": {"stage": 1}, "mine": True}
    plain = given(stage(SFT_ZERO_STAGE=0), 2, 0)
    assert plain.deepspeed is None
    assert plain.ddp_find_unused_parameters is False


def test_device_precision_and_checkpointing(stage: Stage, given: Callable[..., SimpleNamespace]) -> None:
    import torch

    cpu, gpu = given(stage()), given(stage(), 1, 1, dtype=torch.bfloat16)
    assert (cpu.use_cpu, cpu.bf16) == (True, False)
    assert (gpu.use_cpu, gpu.bf16) == (False, True)
    recomputing = given(stage(SFT_GRADIENT_CHECKPOINTING=1))
    assert recomputing.gradient_checkpointing is True
    assert recomputing.gradient_checkpointing_kwargs == {"use_reentrant": False}
    assert given(stage(SFT_GRADIENT_CHECKPOINTING=0), 1, 1).gradient_checkpointing is False


def test_a_paged_optimizer_without_gpu_is_said(stage: Stage) -> None:
    settings = stage(SFT_OPTIM="paged_adamw_32bit")
    (remark,) = machine_remarks(settings, World(1, 0))
    assert "SFT_OPTIM=paged_adamw_32bit" in remark
    assert "adamw_32bit computes the same" in remark
    assert machine_remarks(settings, World(1, 1)) == []
    assert machine_remarks(stage(SFT_OPTIM="adamw_8bit"), World(1, 0)) == []
