"""How many processes, on what."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lib.settings import InputError, TrainingSettings
from lib.training.sizing.devices import count_gpus
from lib.training.sizing.world import World, plan_world


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """gpus(4): a machine whose driver tool lists four."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")

    def install(count: int) -> None:
        lines = "".join(
            f"GPU {i}: NVIDIA H200 (UUID: GPU-{i})\n  MIG 1g.18gb Device 0\n" for i in range(count)
        )
        tool = folder / "nvidia-smi"
        tool.write_text(f'#!/bin/sh\n[ "$1" = "-L" ] && cat <<END\n{lines}END\n')
        tool.chmod(0o755)

    return install


@pytest.fixture
def no_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


def test_without_the_drivers_tool_there_is_one_cpu_process(no_gpus: None) -> None:
    world = plan_world(None, {})
    assert world == World(1, 0)
    assert not world.distributed
    assert world.line(TrainingSettings()) == "  1 process on CPU, no sharding needed"


def test_several_cpu_processes_shard(no_gpus: None) -> None:
    world = plan_world(2, {})
    assert world == World(2, 0)
    assert world.distributed
    assert world.line(TrainingSettings()) == "  2 processes on CPU, DeepSpeed ZeRO-2"


def test_plain_data_parallel_is_a_choice_and_the_users_own_deepspeed_another(tmp_path: Path) -> None:
    world, plain = World(2, 0), TrainingSettings(zero_stage="0")
    assert not world.shards(plain)
    assert world.line(plain) == "  2 processes on CPU, plain data parallel"
    assert world.shards(TrainingSettings(deepspeed_config=tmp_path))
    assert not World(1, 0).shards(TrainingSettings())


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, 4),
        ("0,1", 2),
        ("3", 1),
        ("", 0),
        ("-1", 0),
        ("1,-1,0", 1),
        ("0,1,2,3,4,5", 4),
        ("GPU-a,GPU-b", 2),
    ],
)
def test_one_process_per_visible_gpu(visible: str | None, expected: int, gpus: Callable[[int], None]) -> None:
    gpus(4)
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert count_gpus(environ) == expected
    world = plan_world(None, environ)
    assert world == World(max(expected, 1), expected)
    assert world.distributed == (expected > 0)


def test_nproc_below_the_number_of_gpus_is_kept(gpus: Callable[[int], None]) -> None:
    gpus(4)
    assert plan_world(3, {}) == World(3, 4)


@pytest.mark.parametrize(
    ("nproc", "there", "allowed"), [(0, 0, "at least 1"), (-2, 4, "1 to 4"), (5, 4, "1 to 4")]
)
def test_an_impossible_nproc_is_refused(
    nproc: int, there: int, allowed: str, gpus: Callable[[int], None]
) -> None:
    gpus(there)
    with pytest.raises(InputError) as caught:
        plan_world(nproc, {})
    (problem,) = caught.value.problems
    assert (problem.key, problem.value) == ("--nproc", str(nproc))
    assert allowed in problem.expected


def test_a_launchers_world_size_decides(gpus: Callable[[int], None]) -> None:
    """Two machines of four GPUs: more processes than GPUs here."""
    gpus(4)
    assert plan_world(None, {"WORLD_SIZE": "8", "LOCAL_RANK": "0"}) == World(8, 4)
    assert plan_world(1, {"WORLD_SIZE": "2"}).processes == 2
