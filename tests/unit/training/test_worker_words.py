"""Several processes fail: what the user reads, once."""

import json
from pathlib import Path
from typing import Any

import pytest

from lib.training import launch
from lib.training.launch import World, run_workers
from lib.training.worker_words import say_last

SAY = "from lib.training.worker_words import say_last\n"


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """ended(code): exit code and stderr of two workers that run this code; `rank` is theirs."""
    monkeypatch.setattr(launch, "_require_compiler", lambda world: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(launch.__file__).parents[2]))

    def run(code: str) -> tuple[int, str]:
        script = tmp_path / "worker.py"
        script.write_text(f"import os, signal, sys, time\nrank = int(os.environ['RANK'])\n{SAY}{code}")
        result = run_workers(World(2, 0), [str(script)])
        return result, capfd.readouterr().err

    return run


def test_what_all_say_is_said_once(ended: Any) -> None:
    code, err = ended("say_last('SFT_LR: expected a number')\nsys.exit(2)")
    assert code == 2
    assert err.strip() == "SFT_LR: expected a number"


def test_the_cause_speaks_and_not_its_consequence(ended: Any) -> None:
    """Rank 0 notices first, but only that it lost the other one."""
    code, err = ended(
        "time.sleep(0.2 * rank)\n"
        "say_last('memory' if rank else 'connection closed', follows=not rank)\n"
        "time.sleep(0.6 - 0.2 * rank)\nsys.exit(1)"
    )
    assert code == 1
    assert err.strip() == "[rank 1] memory"


def test_a_killed_rank_is_explained(ended: Any) -> None:
    code, err = ended("time.sleep(60) if rank else os.kill(os.getpid(), signal.SIGKILL)")
    assert code == 1
    assert err.startswith("rank 0 failed: killed from outside\n    remedy:")
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_rank_that_spoke_for_itself_is_not_repeated(ended: Any) -> None:
    code, err = ended("sys.exit('spoken' if rank else 0)")
    assert code == 1
    assert err.strip() == "spoken"


def test_under_another_launcher_a_rank_speaks_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "error.json"
    say_last("no space", environ={"RANK": "1", "TORCHELASTIC_ERROR_FILE": str(file)})
    assert capsys.readouterr().err == "[rank 1] no space\n"
    assert not file.exists()


def test_where_nothing_can_be_left_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = {"LORA_CURRICULUM_LAUNCHER": "1"}
    say_last("no space", environ={**ours, "TORCHELASTIC_ERROR_FILE": str(tmp_path / "absent/error.json")})
    assert capsys.readouterr().err == "no space\n"
    file = tmp_path / "error.json"
    say_last("日本語", environ={**ours, "TORCHELASTIC_ERROR_FILE": str(file)})
    assert capsys.readouterr().err == ""
    assert json.loads(file.read_text())["message"]["message"] == "日本語"
