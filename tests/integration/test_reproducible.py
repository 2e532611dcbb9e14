"""The same seed gives the same bytes; the same global batch gives the same curve, however it is cut up."""

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_curriculum import Curriculum
from tiny_curriculum import rows as conversations

STEPS = 6
# (rows per device and step, accumulated steps, processes): four rows for every update each time.
CUTS = {
    "4x1": (4, 1, 1),
    "1x4": (1, 4, 1),
    "2 ranks x2": (2, 1, 2),
    "2 ranks x1 x2": (1, 2, 2),
    "2 plain ranks x2": (2, 1, 2),
}
# Entries of an answer, and so labelled tokens: ten times as many in one row as in the next.
UNEVEN = (10, 1, 2, 1, 7)
# The cuts add the same fp32 numbers in another order, which differs by a few units of 2^-24 in a loss of
# about 6 (4e-7). Six steps of Adam at a rate of 5e-3 let that grow by some tens; a loss averaged over batches
# instead of tokens, or a batch with other rows, differs from the second decimal on.
LOSS_TOLERANCE = 2e-5
# Adam divides by the root of a running mean of squares: where a gradient is almost 0 its sign, and so a step
# of the full rate, hangs on the last bit. Over the whole adapter this stays far below bf16's 2^-8.
ADAPTER_TOLERANCE = 1e-3

MakeCurriculum = Callable[[Path], Curriculum]
needs_compiler = pytest.mark.skipif(
    shutil.which("c++") is None and shutil.which("g++") is None,
    reason="DeepSpeed compiles its CPU communication with a C++ compiler, and there is none",
)


def adapter(curriculum: Curriculum) -> Path:
    return curriculum.stage_dir(1) / "adapter_model.safetensors"


def curve(curriculum: Curriculum, name: str) -> list[tuple[int, float]]:
    history = curriculum.record(1)["training"]["history"]
    return [(entry["step"], entry[name]) for entry in history if name in entry]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, new_curriculum: MakeCurriculum) -> dict[str, Curriculum]:
    """Stage 1 with the same seed again, with another one, and with the batch cut up in three ways."""
    folder = tmp_path_factory.mktemp("runs")
    made = {name: new_curriculum(folder / name) for name in ("same seed", "other seed", *CUTS)}
    made["other seed"].set(1, SFT_SEED=3408)
    for name, (rows, accumulated, _) in CUTS.items():
        made[name].write_rows("general.jsonl", conversations(20, entries=UNEVEN))
        made[name].set(
            1,
            SFT_LORA_DROPOUT=0,
            SFT_MAX_STEPS=STEPS,
            SFT_EPOCHS=3,
            SFT_PER_DEVICE_TRAIN_BS=rows,
            SFT_GRAD_ACCUM=accumulated,
            SFT_EVAL_STEPS=3,
            SFT_SAVE_STEPS=STEPS,
        )
    single = [name for name in made if CUTS.get(name, (0, 0, 1))[2] == 1]
    with ThreadPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        for _ in pool.map(lambda name: made[name].train(1, "--nproc", 1), single):
            pass
    return made


@pytest.fixture(scope="module")
def cut_by_itself(runs: dict[str, Curriculum], tmp_path_factory: pytest.TempPathFactory) -> Curriculum:
    """The batch of 4x1 by SFT_GLOBAL_BATCH_SIZE=4 and SFT_PER_DEVICE_TRAIN_BS=auto; plan and run said so."""
    curriculum = runs["4x1"].copy_to(tmp_path_factory.mktemp("auto") / "curriculum")
    curriculum.unset(1, "SFT_GRAD_ACCUM")
    curriculum.set(1, SFT_PER_DEVICE_TRAIN_BS="auto", SFT_GLOBAL_BATCH_SIZE=4)
    (plan,) = curriculum.plans(1)
    said = curriculum.train(1)
    assert plan["batch"]["line"] in said.splitlines()
    assert (plan["batch"]["rows"], plan["batch"]["passes"]) == (4, 1)
    return curriculum


@pytest.fixture(scope="module")
def sharded(runs: dict[str, Curriculum]) -> Curriculum:
    """Stage 1 on two processes; the first such run on a machine compiles for a minute or more."""
    said = runs["2 ranks x2"].train(1, "--nproc", 2)
    assert "2 processes on CPU, DeepSpeed ZeRO-2" in said
    return runs["2 ranks x2"]


def test_the_same_seed_gives_the_same_adapter_byte_for_byte(
    trained: Curriculum, runs: dict[str, Curriculum]
) -> None:
    """With dropout; the first time as the first of three stages, the second time alone."""
    assert adapter(runs["same seed"]).read_bytes() == adapter(trained).read_bytes()
    assert runs["same seed"].record(1)["adapter_sha256"] == trained.record(1)["adapter_sha256"]
    assert curve(runs["same seed"], "loss") == curve(trained, "loss")


def test_another_seed_gives_another_adapter(trained: Curriculum, runs: dict[str, Curriculum]) -> None:
    assert adapter(runs["other seed"]).read_bytes() != adapter(trained).read_bytes()


def test_four_rows_at_once_are_one_row_four_times(runs: dict[str, Curriculum]) -> None:
    assert_equivalent(runs["4x1"], runs["1x4"])


def test_auto_is_the_number_that_it_becomes(runs: dict[str, Curriculum], cut_by_itself: Curriculum) -> None:
    assert adapter(cut_by_itself).read_bytes() == adapter(runs["4x1"]).read_bytes()
    record = cut_by_itself.record(1)
    assert record["settings"]["SFT_PER_DEVICE_TRAIN_BS"] == "4"
    assert record["settings"]["SFT_GRADIENT_CHECKPOINTING"] == "0"
    # What was written is what the stage is known by: another machine may come to another number.
    assert record["identity"]["SFT_PER_DEVICE_TRAIN_BS"] == "auto"
    assert "up to date" in cut_by_itself.train(1)


def test_two_plain_processes_train_as_one(runs: dict[str, Curriculum]) -> None:
    plain = runs["2 plain ranks x2"]
    result = plain.command("--stage", 1, "--nproc", 2, "--set", "SFT_ZERO_STAGE=0")
    assert result.returncode == 0, result.stderr
    assert "2 processes on CPU, plain data parallel" in result.stdout
    assert_equivalent(runs["4x1"], plain)
    # Where two train, one of them reads and tokenises for both.
    assert [result.stderr.count(f"{doing} general.jsonl: ") for doing in ("reading", "tokenising")] == [1, 1]


@needs_compiler
def test_two_sharded_processes_train_as_one(runs: dict[str, Curriculum], sharded: Curriculum) -> None:
    assert_equivalent(runs["4x1"], sharded)


@needs_compiler
@pytest.mark.slow
def test_two_sharded_processes_that_accumulate_train_as_one(runs: dict[str, Curriculum]) -> None:
    runs["2 ranks x1 x2"].train(1, "--nproc", 2)
    assert_equivalent(runs["4x1"], runs["2 ranks x1 x2"])


def assert_equivalent(one: Curriculum, other: Curriculum) -> None:
    for name, points in (("loss", STEPS), ("grad_norm", STEPS), ("eval_loss", 2)):
        first, second = curve(one, name), curve(other, name)
        assert len(first) == points
        assert [step for step, _ in first] == [step for step, _ in second]
        assert [value for _, value in second] == pytest.approx([v for _, v in first], abs=LOSS_TOLERANCE)
    counted = [c.record(1)["training"]["tokens"] for c in (one, other)]
    assert counted[0] == counted[1]
    weights = [torch.cat([t.float().flatten() for t in load_file(adapter(c)).values()]) for c in (one, other)]
    assert (weights[0] - weights[1]).norm() < ADAPTER_TOLERANCE * weights[0].norm()


@needs_compiler
def test_each_process_holds_half_of_the_optimizer_state(sharded: Curriculum) -> None:
    """The checkpoint is DeepSpeed's own: one optimizer file for each rank, of ZeRO stage 2."""
    folder = sharded.stage_dir(1) / f"checkpoint-{STEPS}/global_step{STEPS}"
    trainable = sharded.record(1)["adapter"]["trainable"]
    shards = [_optimizer_state(folder, rank) for rank in (0, 1)]
    assert len(list(folder.glob("*optim_states.pt"))) == 2
    for shard in shards:
        assert shard["zero_stage"] == 2
        assert shard["partition_count"] == [2]
        moments = shard["base_optimizer_state"]["state"][0]
        for held in (shard["single_partition_of_fp32_groups"][0], moments["exp_avg"], moments["exp_avg_sq"]):
            # Up to the padding that makes the parts equal.
            assert trainable / 2 <= held.numel() < trainable / 2 + 64
    first, second = (shard["single_partition_of_fp32_groups"][0] for shard in shards)
    assert not torch.equal(first, second)


def _optimizer_state(folder: Path, rank: int) -> dict[str, Any]:
    path = folder / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
    return torch.load(path, weights_only=False)["optimizer_state_dict"]
