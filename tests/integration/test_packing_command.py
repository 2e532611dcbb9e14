"""Packed stages by the real command: what the plan promises, alone and on two processes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_curriculum import Curriculum

KEYS = {
    "SFT_PACKING": 1,
    "SFT_LORA_DROPOUT": 0,
    "SFT_MAX_STEPS": -1,
    "SFT_EPOCHS": 2,
    "SFT_MAX_SEQ_LEN": 192,
    "SFT_GRAD_ACCUM": 1,
    "SFT_EVAL_STEPS": 100,
    "SFT_SAVE_STEPS": 100,
    "SFT_GEN_EVAL_SAMPLES": 0,
    "SFT_GEN_EVAL_BEFORE": 0,
}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, new_curriculum: Callable[[Path], Curriculum]) -> Any:
    """packed(processes): (what was planned, the record) of stage 1, two sequences to a step."""

    def run(processes: int) -> tuple[dict[str, Any], dict[str, Any], str]:
        curriculum = new_curriculum(tmp_path_factory.mktemp("packed") / "curriculum")
        curriculum.set(1, SFT_PER_DEVICE_TRAIN_BS=2 // processes, **KEYS)
        (plan,) = curriculum.plans(1, "--nproc", processes)
        said = curriculum.train(1, "--nproc", processes)
        return plan, curriculum.record(1), said

    return run


@pytest.fixture(scope="module")
def alone(packed: Any) -> tuple[dict[str, Any], dict[str, Any], str]:
    return packed(1)


def losses(record: dict[str, Any]) -> list[float]:
    return [entry["loss"] for entry in record["training"]["history"] if "loss" in entry]


def test_the_run_is_what_was_planned(alone: tuple[dict[str, Any], dict[str, Any], str]) -> None:
    plan, record, said = alone
    count = plan["ledger"]["packed"]
    assert count == record["data"]["ledger"]["packed"]
    assert (count["rows"], count["capacity"]) == (16, 192)
    assert 3 <= count["packs"] < 16
    assert 0.7 < count["fill"] <= 1
    assert plan["batch"]["global_batch"] == 2
    assert plan["steps"] == record["training"]["steps"] == 2 * -(-count["packs"] // 2)
    assert plan["tokens"] == record["training"]["tokens"] == 2 * plan["ledger"]["encoded"]["tokens"]
    assert f"Packed 16 rows into {count['packs']} sequences of at most 192 tokens" in said
    assert "batches without padding: attention sdpa_by_row keeps rows apart" in said


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("c++") is None and shutil.which("g++") is None,
    reason="DeepSpeed compiles its CPU communication with a C++ compiler, and there is none",
)
def test_two_processes_train_on_the_same_sequences_in_the_same_steps(
    packed: Any, alone: tuple[dict[str, Any], dict[str, Any], str]
) -> None:
    plan, record, said = packed(2)
    assert "2 processes on CPU, DeepSpeed ZeRO-2" in said
    assert plan["steps"] == record["training"]["steps"] == alone[0]["steps"]
    # Of an odd number of sequences the second process gets the first one again (accelerate's even batches).
    assert losses(record)[:-1] == pytest.approx(losses(alone[1])[:-1], rel=2e-5)
