from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from lib.lineage.estimates import (
    Workload,
    disk,
    memory,
    planned_steps,
    readable_bytes,
    seconds,
    trained_tokens,
)

LOAD = Workload(
    rows=100, tokens=5000, batch=2, accumulation=4, processes=1, epochs=2, max_steps=-1, sequence=512
)


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
                    load = Workload(rows, 10, batch, accumulation, processes, epochs, max_steps, 64)
                    assert planned_steps(load) == transformers_steps(load), load


def test_tokens_are_those_of_the_epochs_trained() -> None:
    assert trained_tokens(LOAD) == 2 * 5000
    assert trained_tokens(replace(LOAD, max_steps=13)) == 5000
    assert trained_tokens(replace(LOAD, rows=0)) == 0


def test_memory_is_the_sum_that_it_shows() -> None:
    sizes = {"weight_bytes": 2, "hidden": 64, "layers": 2, "vocabulary": 1000, "load": LOAD}
    plain = memory(10**9, 10**7, checkpointing=False, **sizes)  # type: ignore[arg-type]
    assert plain.value > 2 * 10**9 + 16 * 10**7
    assert "weights 2.0 GB + adapter and optimizer 160.0 MB" in plain.arithmetic
    stacked = memory(10**9, 10**7, checkpointing=False, stacked=10**8, **sizes)  # type: ignore[arg-type]
    assert stacked.value - plain.value == 2 * (10**8 + 10**7)
    assert "weights 2.0 GB + factors of earlier stages 220.0 MB + adapter" in stacked.arithmetic
    less = memory(10**9, 10**7, checkpointing=True, **sizes)  # type: ignore[arg-type]
    assert less.value < plain.value
    sharded = memory(10**9, 10**7, checkpointing=True, **(sizes | {"load": replace(LOAD, processes=4)}))  # type: ignore[arg-type]
    assert less.value - sharded.value == 12 * 10**7 * 3 // 4


def test_time_from_a_measured_speed_else_from_flops() -> None:
    measured = seconds(10**9, 10_000, measured_tokens_per_second=100.0, cores=2, gpus=0, processes=1)
    assert (measured.value, measured.text) == (100.0, "1 min 40 s")
    assert "measured" in measured.arithmetic
    guessed = seconds(10**9, 10_000, measured_tokens_per_second=None, cores=2, gpus=0, processes=1)
    assert guessed.value == 4 * 10**9 * 10_000 / 16e9
    assert "assumed" in guessed.arithmetic


def test_disk_counts_the_merged_base_where_there_is_one() -> None:
    first = disk(0, 10**6, checkpoints=3, free=10**9)
    assert first.value == 10**6 * (2 + 12 * 3)
    assert first.arithmetic.endswith("1.0 GB free")
    later = disk(2 * 10**9, 10**6, checkpoints=3, free=10**9)
    assert later.value - first.value == 2 * 10**9
    assert later.arithmetic.endswith("1.0 GB free: NOT ENOUGH")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1536, "1.5 kB"), (61e9, "61.0 GB"), (2e15, "2000.0 TB")]
)
def test_readable_bytes(count: float, text: str) -> None:
    assert readable_bytes(count) == text
