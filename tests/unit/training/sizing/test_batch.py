"""The cut of the global batch, and whether layers are recomputed, by the memory that is there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.settings import InputError, StageSettings
from lib.training.sizing.batch import BatchPlan, plan_batch, resolved
from lib.training.sizing.devices import DeviceMemory
from lib.training.sizing.world import World

Stage = Callable[..., StageSettings]
GB = 10**9
# Qwen3-4B, which most of the user's stages train.
DENSE_4B = {
    "model_type": "qwen3", "hidden_size": 2560, "num_hidden_layers": 36, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 9728, "vocab_size": 151_936,
    "tie_word_embeddings": True, "dtype": "bfloat16",
}  # fmt: skip
AUTO = {"SFT_PER_DEVICE_TRAIN_BS": "auto", "SFT_MAX_SEQ_LEN": 1024}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text(json.dumps(DENSE_4B))
    return tmp_path / "base"


@pytest.fixture
def planned(stage: Stage, base: Path) -> Callable[..., BatchPlan]:
    """planned(80, SFT_…): the batch on GPUs of so many GB."""

    def plan(gigabytes: int, processes: int = 1, folder: Path | None = base, **keys: Any) -> BatchPlan:
        device = DeviceMemory(gigabytes * GB, f"a GPU of {gigabytes} GB")
        return plan_batch(stage(**keys), folder, World(processes, processes), device)

    return plan


def test_numbers_are_taken_as_they_are(planned: Callable[..., BatchPlan]) -> None:
    batch = planned(80, SFT_PER_DEVICE_TRAIN_BS=3, SFT_GRAD_ACCUM=5)
    assert (batch.rows, batch.passes, batch.global_batch) == (3, 5, 15)
    assert planned(5, SFT_PER_DEVICE_TRAIN_BS=3).rows == 3


def test_auto_takes_as_many_rows_as_fit(planned: Callable[..., BatchPlan]) -> None:
    cuts = {gigabytes: planned(gigabytes, **AUTO) for gigabytes in (24, 40, 80, 141)}
    rows = [batch.rows for batch in cuts.values()]
    assert rows == sorted(rows)
    assert rows[0] < rows[-1]
    for gigabytes, batch in cuts.items():
        assert batch.global_batch == 16  # 2, the default, times SFT_GRAD_ACCUM=8
        assert batch.memory is not None
        assert batch.memory.total <= gigabytes * GB


def test_the_next_larger_cut_would_not_fit_and_is_shown(planned: Callable[..., BatchPlan]) -> None:
    batch = planned(40, **AUTO)
    assert not batch.checkpointing
    larger = planned(40, **{**AUTO, "SFT_PER_DEVICE_TRAIN_BS": batch.rows * 2}, SFT_GRADIENT_CHECKPOINTING=0)
    assert larger.memory is not None
    assert larger.memory.total > 40 * GB
    line = batch.line()
    assert f"batch {batch.rows} rows x {batch.passes} passes = 16 rows a step" in line
    assert "with rows of 1,024 tokens of 40.0 GB (a GPU of 40 GB)" in line
    assert f"{batch.rows * 2} rows would take" in line


def test_rows_stay_below_what_keeps_a_device_busy(planned: Callable[..., BatchPlan]) -> None:
    batch = planned(1000, SFT_PER_DEVICE_TRAIN_BS="auto", SFT_MAX_SEQ_LEN=4096, SFT_GLOBAL_BATCH_SIZE=512)
    assert batch.rows == 4


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_the_global_batch_is_the_same_on_any_number_of_processes(
    processes: int, planned: Callable[..., BatchPlan]
) -> None:
    for rows in ("auto", 2):
        batch = planned(
            80, processes, SFT_PER_DEVICE_TRAIN_BS=rows, SFT_GLOBAL_BATCH_SIZE=48, SFT_MAX_SEQ_LEN=512
        )
        assert batch.global_batch == 48
        assert batch.rows * batch.passes * processes == 48


def test_checkpointing_is_on_where_not_even_one_row_fits_without(planned: Callable[..., BatchPlan]) -> None:
    batch = planned(14, **AUTO)
    assert batch.checkpointing
    assert "gradient checkpointing on" in batch.line()
    assert "without checkpointing " in batch.line()
    assert planned(14, **AUTO, SFT_GRADIENT_CHECKPOINTING=0).checkpointing is False
    assert planned(80, **AUTO, SFT_GRADIENT_CHECKPOINTING=1).checkpointing is True


def test_a_number_of_rows_decides_over_checkpointing_too(planned: Callable[..., BatchPlan]) -> None:
    many = {"SFT_PER_DEVICE_TRAIN_BS": 16, "SFT_MAX_SEQ_LEN": 1024}
    assert planned(40, **many).checkpointing
    assert not planned(1000, **many).checkpointing


def test_what_does_not_fit_at_all_is_said(planned: Callable[..., BatchPlan]) -> None:
    batch = planned(5, **AUTO)
    assert (batch.rows, batch.checkpointing) == (1, True)
    assert "[WARNING] more than the 5.0 GB" in batch.line()


@pytest.mark.parametrize(
    ("keys", "expected", "remedy"),
    [
        (
            {"SFT_GLOBAL_BATCH_SIZE": 18},
            "a multiple of 4 = SFT_PER_DEVICE_TRAIN_BS=2 x 2",
            "set it to 16 or 20",
        ),
        ({"SFT_GLOBAL_BATCH_SIZE": 2}, "a multiple of 4", "set it to 4,"),
        (
            {"SFT_GLOBAL_BATCH_SIZE": 7, "SFT_PER_DEVICE_TRAIN_BS": "auto"},
            "a multiple of 2 = 2 proc",
            "6 or 8",
        ),
        (
            {"SFT_GLOBAL_BATCH_SIZE": 16, "SFT_GRAD_ACCUM": 8},
            "32 = SFT_PER_DEVICE_TRAIN_BS=2",
            "SFT_GRAD_ACCUM=",
        ),
    ],
)
def test_a_global_batch_that_cannot_be_cut_is_refused(
    keys: dict[str, Any], expected: str, remedy: str, planned: Callable[..., BatchPlan]
) -> None:
    with pytest.raises(InputError) as caught:
        planned(80, 2, **keys)
    (problem,) = caught.value.problems
    assert problem.key == "SFT_GLOBAL_BATCH_SIZE"
    assert problem.where.endswith(tuple(f"stage1.env:{line}" for line in range(4, 7)))
    assert expected in problem.expected
    assert remedy in problem.remedy


def test_numbers_that_agree_with_the_global_batch_may_all_be_given(planned: Callable[..., BatchPlan]) -> None:
    keys = {"SFT_PER_DEVICE_TRAIN_BS": 2, "SFT_GRAD_ACCUM": 8, "SFT_GLOBAL_BATCH_SIZE": 32}
    assert planned(80, 2, **keys).passes == 8


def test_auto_on_a_family_of_unknown_sizes_is_refused(base: Path, planned: Callable[..., BatchPlan]) -> None:
    (base / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(InputError, match="SFT_PER_DEVICE_TRAIN_BS=1"):
        planned(80, **AUTO)
    batch = planned(80, SFT_PER_DEVICE_TRAIN_BS=4)
    assert (batch.rows, batch.checkpointing, batch.memory) == (4, True, None)


def test_without_the_base_the_plan_leaves_open_what_depends_on_it(planned: Callable[..., BatchPlan]) -> None:
    batch = planned(80, 1, None, **AUTO)
    assert batch.global_batch == 16
    assert "decided when the base is on this machine" in batch.line()


def test_everything_downstream_sees_numbers(
    stage: Stage, base: Path, planned: Callable[..., BatchPlan]
) -> None:
    settings = stage(**AUTO, SFT_GLOBAL_BATCH_SIZE=64)
    batch = planned(80, **AUTO, SFT_GLOBAL_BATCH_SIZE=64)
    after = resolved(settings, batch)
    assert (after.training.micro_batch, after.training.grad_accum) == (batch.rows, batch.passes)
    assert after.values["SFT_PER_DEVICE_TRAIN_BS"] == str(batch.rows)
    assert after.values["SFT_GRAD_ACCUM"] == str(batch.passes)
    assert after.model.gradient_checkpointing == after.values["SFT_GRADIENT_CHECKPOINTING"] == "0"
    assert after.origins == settings.origins
    device = DeviceMemory(80 * GB, "a GPU of 80 GB")
    assert resolved(after, plan_batch(after, base, World(1, 1), device)) == after
    with pytest.raises(AssertionError):
        _ = settings.training.micro_batch
