"""Several processes fail: what the user reads, once."""

import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lib.training.processes import launch
from lib.training.processes.launch import run_workers
from lib.training.processes.worker_words import last_words, say_last
from lib.training.sizing.world import World

SAY = "from lib.training.processes.worker_words import say_last\n"


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """ended(code): exit code and stderr of two workers that run this code; `rank` is theirs."""
    monkeypatch.setattr(launch, "_require_compiler", lambda world: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(launch.__file__).parents[3]))

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


def failure(code: int, text: str = "", *, at: int = 0, follows: bool = False, signal: str = "") -> Any:
    """A failed worker as torch describes it: what it left, or the signal that ended it."""
    note = {"message": text, "extraInfo": {"timestamp": "7", "at": 7 * 10**9 + at, "follows": follows}}
    return SimpleNamespace(exitcode=code, message=note if text else signal, timestamp=7)


def test_the_first_to_fail_speaks_within_one_second() -> None:
    assert last_words({0: failure(1, "second", at=20), 1: failure(2, "first", at=10)}) == (
        "[rank 1] first",
        2,
    )


def test_rank_0_speaks_for_all() -> None:
    waited = failure(1, "ended, because rank 0 failed", at=20, follows=True)
    assert last_words({0: failure(2, "no such file", at=10), 1: waited}) == ("no such file", 2)


def test_the_cause_speaks_and_not_its_consequence() -> None:
    """Rank 0 was quicker to notice that it lost the other one, and a third was only asked to end."""
    lost = failure(1, "connection closed", at=10, follows=True)
    asked = failure(-signal.SIGTERM, signal="Signal 15 (SIGTERM) received by PID 3")
    assert last_words({0: lost, 1: failure(1, "memory", at=20), 2: asked}) == ("[rank 1] memory", 1)
    assert last_words({0: lost, 2: asked}) == ("connection closed", 1)
    assert last_words({2: asked}) == ("", 128 + signal.SIGTERM)
    died = failure(-signal.SIGKILL, signal="Signal 9 (SIGKILL) received by PID 2")
    words, code = last_words({0: lost, 1: died})
    assert (words.splitlines()[0], code) == ("rank 1 failed: killed from outside", 1)
    died.timestamp += 30
    assert last_words({0: lost, 1: died}) == ("connection closed", 1), "the launcher's own kill is no cause"


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


def test_under_another_launcher_a_rank_speaks_itself_and_torchrun_repeats_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "error.json"
    say_last("no space", environ={"RANK": "1", "TORCHELASTIC_ERROR_FILE": str(file)})
    assert capsys.readouterr().err == "[rank 1] no space\n"
    assert json.loads(file.read_text())["message"]["extraInfo"]["py_callstack"] == "no space"


def test_where_nothing_can_be_left_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = {"LORA_CURRICULUM_LAUNCHER": "1"}
    say_last("no space", environ={**ours, "TORCHELASTIC_ERROR_FILE": str(tmp_path / "absent/error.json")})
    assert capsys.readouterr().err == "no space\n"
    file = tmp_path / "error.json"
    say_last("日本語", environ={**ours, "TORCHELASTIC_ERROR_FILE": str(file)})
    assert capsys.readouterr().err == ""
    assert json.loads(file.read_text())["message"]["message"] == "日本語"
