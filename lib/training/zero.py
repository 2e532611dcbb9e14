"""DeepSpeed settings: ours, or the user's own JSON checked against our batch arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib.files import read_json
from lib.settings import Problems, TrainingSettings
from lib.training.sizing.memory import GRADIENT_BUCKET
from lib.training.sizing.sizes import counted

BATCH_KEYS = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")


def deepspeed_config(training: TrainingSettings, *, processes: int, gpus: int) -> dict[str, Any]:
    """The settings to hand to DeepSpeed. Raises InputError for a user's JSON that disagrees with ours."""
    if training.deepspeed_config is not None:
        return check_user_config(training.deepspeed_config, training, processes)
    return {
        # Batch sizes stay "auto": two places that compute them disagree sooner or later.
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "zero_optimization": {
            "stage": 2,
            "contiguous_gradients": True,
            # A buffer of this many gradients is allocated at every pass (two to overlap); DeepSpeed's own
            # default takes 2 GB of a GPU, more than most adapters.
            "reduce_bucket_size": GRADIENT_BUCKET,
            # Overlapping needs a second CUDA stream; on the CPU it only adds copies.
            "overlap_comm": gpus > 0,
        },
        "steps_per_print": 10**9,
    }


def check_user_config(path: Path, training: TrainingSettings, processes: int) -> dict[str, Any]:
    """SFT_DEEPSPEED_CONFIG as a dict. Raises InputError naming every number that contradicts the stage."""
    config: dict[str, Any] = read_json(path)
    problems = Problems()
    for key, (expected, why) in _right(training, processes).items():
        given = config.get(key, "auto")
        if given not in ("auto", expected):
            problems.add(
                where=str(path),
                key=key,
                value=str(given),
                expected=f'"auto" or {expected} ({why})',
                remedy=f'write "{key}": "auto"',
            )
    zero = config.get("zero_optimization") or {}
    if not isinstance(zero, dict):
        problems.add(
            where=str(path),
            key="zero_optimization",
            value=str(zero),
            expected="an object",
            remedy='write "zero_optimization": {"stage": 2}',
        )
        problems.raise_if_any()
    stage = zero.get("stage", 0)
    if stage == 3:
        problems.add(
            where=str(path),
            key="zero_optimization.stage",
            value="3",
            expected="stage 0, 1 or 2: with a frozen base, stage 3 would only shuttle frozen weights about",
            remedy='write "stage": 2',
        )
    if stage == 0 and "skip" in (training.on_nan, training.on_spike):
        problems.add(
            where=str(path),
            key="zero_optimization.stage",
            value="0",
            expected="stage 1 or 2: without ZeRO, DeepSpeed does its step before anybody can leave it out",
            remedy='write "stage": 2, or set SFT_ON_NAN=stop and SFT_ON_SPIKE=warn',
        )
    problems.raise_if_any()
    return config


def _right(training: TrainingSettings, processes: int) -> dict[str, tuple[float, str]]:
    """What the stage makes of each number that a DeepSpeed JSON may state, and how it comes about."""
    rows, passes = training.micro_batch, training.grad_accum
    product = " x ".join([counted(rows, "row"), counted(passes, "pass"), counted(processes, "process")])
    return {
        "train_micro_batch_size_per_gpu": (rows, "SFT_PER_DEVICE_TRAIN_BS"),
        "gradient_accumulation_steps": (passes, "SFT_GRAD_ACCUM"),
        "train_batch_size": (rows * passes * processes, product),
        "gradient_clipping": (training.max_grad_norm, "SFT_MAX_GRAD_NORM"),
    }
