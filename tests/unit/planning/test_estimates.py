from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from lib.model.architecture import Architecture
from lib.planning.estimates import (
    Workload,
    disk,
    measured_seconds,
    planned_steps,
    seconds,
    trained_tokens,
)
from lib.settings import LoraSettings
from lib.training.sizing.flops import pass_bytes, token_flops
from lib.training.sizing.speed import Speed
from lib.training.sizing.training_shape import TrainingShape

MODEL = Architecture(
    family="qwen3_moe", hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, intermediate=32, experts=8,
    experts_per_token=2, vocabulary=512, tied=False, bytes_per_weight=2,
)  # fmt: skip
ON_ONE_GPU = TrainingShape(
    architecture=MODEL, rank=8, targets=LoraSettings().target_modules, dropout=False, rows=2, length=50,
    checkpointing=False, weight_bytes=2, on_gpu=True, processes=1, sharded=True, attention="sdpa",
)  # fmt: skip
LOAD = Workload(rows=100, tokens=5000, batch=2, accumulation=4, processes=1, epochs=2, max_steps=-1)


def transformers_steps(load: Workload) -> int:
    """What the Trainer itself computes from a loader of that length."""
    import math

    from transformers import Trainer, TrainingArguments

    batches = math.ceil(load.rows / (load.batch * load.processes))
    arguments: Any = SimpleNamespace(
        max_steps=load.max_steps,
        gradient_accumulation_steps=load.accumulation,
        num_train_epochs=load.epochs,
        train_batch_size=load.batch,
        world_size=load.processes,
    )
    assert TrainingArguments
    trainer: Any = SimpleNamespace(
        get_total_train_batch_size=lambda args: 1,
        get_sp_size=lambda: 1,
        num_examples=lambda loader: load.rows,
    )
    return int(Trainer.set_initial_training_values(trainer, arguments, [None] * batches)[-1])


def test_steps_equal_transformers_arithmetic_on_a_grid() -> None:
    for rows in (1, 7, 8, 33, 100):
        for batch, accumulation, processes in ((1, 1, 1), (2, 8, 1), (3, 4, 2), (2, 2, 4)):
            for epochs in (0.3, 1, 2.5):
                for max_steps in (-1, 5):
                    load = Workload(rows, 10, batch, accumulation, processes, epochs, max_steps)
                    assert planned_steps(load) == transformers_steps(load), load


def test_tokens_are_those_of_the_epochs_trained() -> None:
    assert trained_tokens(LOAD) == 2 * 5000
    assert trained_tokens(replace(LOAD, max_steps=13)) == 5000
    assert trained_tokens(replace(LOAD, rows=0)) == 0


def test_time_from_a_measured_speed() -> None:
    measured = measured_seconds(LOAD, 100.0)
    assert (measured.value, measured.text) == (100.0, "1 min 40 s")
    assert "measured" in measured.arithmetic


def test_time_from_flops_with_its_arithmetic() -> None:
    load = replace(LOAD, processes=4, learned=0.5)
    shape = replace(ON_ONE_GPU, length=50)
    speed = Speed(1e12, 0.0, "a made-up speed")
    found = seconds(shape, load, speed)
    assert found.value == pytest.approx(10_000 / 4 * sum(token_flops(shape, 0.5).values()) / 1e12), (
        "every process does its share of the tokens"
    )
    assert "assumed" in found.arithmetic
    assert any("a made-up speed" in line for line in found.lines)
    assert found.lines[-1].startswith(f"{planned_steps(load) * 4} passes ({planned_steps(load)} steps x 4)")
    assert "at most" in seconds(shape, replace(load, full_rows=True), speed).arithmetic


def test_where_reading_the_weights_takes_longer_it_counts_and_is_said() -> None:
    shape, slow = replace(ON_ONE_GPU, length=50), Speed(1e20, 1e9, "")
    found = seconds(shape, LOAD, slow)
    assert found.value == pytest.approx(planned_steps(LOAD) * 4 * pass_bytes(shape) / 1e9)
    assert any("more tokens a pass would cost nothing" in line for line in found.lines)


def test_disk_counts_the_merged_base_where_there_is_one() -> None:
    first = disk(0, 10**6, checkpoints=3, free=10**9)
    assert first.value == 10**6 * (2 + 12 * 3)
    assert first.arithmetic.endswith("1.0 GB free")
    assert disk(0, 10**6, checkpoints=3, free=None).arithmetic.endswith("checkpoints 38.0 MB")
    later = disk(2 * 10**9, 10**6, checkpoints=3, free=10**9)
    assert later.value - first.value == 2 * 10**9
    assert later.arithmetic.endswith("1.0 GB free: NOT ENOUGH")
