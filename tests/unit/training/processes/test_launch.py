import os
import sys
from pathlib import Path

import pytest

from lib.settings import InputError
from lib.training.processes import launch
from lib.training.processes.launch import is_worker, prepare_environment, run_workers
from lib.training.sizing.world import World


@pytest.fixture
def no_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


def test_workers_are_told_by_their_local_rank() -> None:
    assert is_worker({"LOCAL_RANK": "0"})
    assert not is_worker({"WORLD_SIZE": "2"})


def test_the_environment_is_prepared_and_what_the_user_set_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DS_ACCELERATOR", "MLFLOW_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "to be put back")
        monkeypatch.delenv(name)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    monkeypatch.setenv("PATH", "/somewhere")
    prepare_environment(World(2, 0))
    assert os.environ["DS_ACCELERATOR"] == "cpu"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
    assert os.environ["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/somewhere"]
    monkeypatch.delenv("DS_ACCELERATOR")
    prepare_environment(World(2, 2))
    assert "DS_ACCELERATOR" not in os.environ


def test_several_cpu_processes_need_a_compiler(no_gpus: None) -> None:
    with pytest.raises(InputError, match=r"C\+\+ compiler"):
        run_workers(World(2, 0), ["train.py"])


def test_plain_data_parallel_needs_none(
    no_gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    script = tmp_path / "worker.py"
    script.write_text("")
    assert run_workers(World(2, 0), [str(script)], sharded=False) == 0


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (2, 2)])
def test_the_exit_code_is_that_of_the_rank_that_failed(
    code: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_require_compiler", lambda world: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    script = tmp_path / "worker.py"
    script.write_text(
        "import os, pathlib, sys\n"
        "rank = os.environ['LOCAL_RANK']\n"
        "pathlib.Path(sys.argv[1], rank).write_text(os.environ['WORLD_SIZE'])\n"
        f"sys.exit({code} if rank == '1' else 0)\n"
    )
    assert run_workers(World(2, 0), [str(script), str(tmp_path)]) == expected
    assert (tmp_path / "1").read_text() == "2"
