"""The watchdog over this process, with a limit of a fraction of a second."""

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from eventually import PATIENCE, eventually

from lib.heartbeat import HEART, beat, for_a_person, phase
from lib.settings import StageSettings
from lib.training.phase_times import say_phase, times_line
from lib.training.sizing.world import World
from lib.training.watchdog.stall_files import TALK, StallFiles
from lib.training.watchdog.stall_verdict import Report, Seen
from lib.training.watchdog.watchdog import Watch, watching

ROOT = Path(__file__).parents[4]
LIMIT = 0.4
ALONE = World(1, 0)


@pytest.fixture
def settings(stage: Callable[..., StageSettings]) -> StageSettings:
    return stage(SFT_STALL_SECONDS=LIMIT)


def test_a_stall_is_said_with_its_stacks_and_then_that_it_moves(settings: StageSettings, capfd: Any) -> None:
    stalls = settings.stage_dir / "stalls.txt"
    told: list[str] = []
    with watching(Watch.of(settings, ALONE)), phase("load"):
        eventually(stalls.exists)  # written after it was said
        beat()
        eventually(lambda: told.append(capfd.readouterr().err) or "moves again" in "".join(told))
    said = "".join(told).splitlines()
    assert re.fullmatch(r"\[WARNING\] nothing has moved for \d s in: load", said[0])
    assert said[1].startswith("    blocked, not computing (0.")
    assert said[2] == f"    stacks: {stalls}; the run goes on (SFT_STALL_SECONDS, SFT_ON_STALL)"
    assert said[-1] == "  it moves again"
    kept = stalls.read_text()
    assert "-- rank 0, process " in kept
    assert "in test_a_stall_is_said_with_its_stacks_and_then_that_it_moves" in kept
    assert not (settings.stage_dir / TALK).exists()


def test_work_that_moves_is_left_alone(settings: StageSettings, capfd: Any) -> None:
    before = threading.active_count()
    with watching(Watch.of(settings, ALONE)), phase("training"):
        for step in range(7):
            time.sleep(0.1)
            beat(f"step {step}")
    assert capfd.readouterr() == ("", "")
    assert not settings.stage_dir.exists()
    assert threading.active_count() == before


def test_0_is_off(stage: Callable[..., StageSettings], capfd: Any) -> None:
    before = threading.active_count()
    with watching(Watch.of(stage(SFT_STALL_SECONDS=0), ALONE)):
        assert threading.active_count() == before
    assert capfd.readouterr() == ("", "")


def test_what_fails_in_the_block_goes_on(settings: StageSettings) -> None:
    with pytest.raises(ZeroDivisionError), watching(Watch.of(settings, ALONE)):
        raise ZeroDivisionError
    assert "watchdog" not in {thread.name for thread in threading.enumerate()}


HELD = """
import ctypes, sys
sys.path.insert(0, {root!r})
from lib.heartbeat import phase
from lib.settings import load_stage
from lib.training.sizing.world import World
from lib.training.watchdog.watchdog import Watch, watching
from pathlib import Path
keys = ["SFT_STALL_SECONDS=0.4", "SFT_ON_STALL={action}"]
settings = load_stage(Path({stages!r}), 1, overrides=keys, environ={{}})
with watching(Watch.of(settings, World(1, 0))), phase("first forward"):
    ctypes.PyDLL(None).{call}
    print("went on")
"""


@pytest.mark.parametrize(("action", "code", "out"), [("continue", 0, "went on\n"), ("stop", 1, "")])
def test_c_code_that_keeps_pythons_lock(
    settings: StageSettings, action: str, code: int, out: str, tmp_path: Path
) -> None:
    """No Python runs in that process while it hangs: until its stacks are written, or to be ended."""
    stalls = settings.stage_dir / "stalls.txt"
    until_written = f"until grep -qs 'line 12 in' '{stalls}'; do sleep 0.1; done"
    call = f"system({until_written.encode()!r})" if action == "continue" else "usleep(100_000_000)"
    script = HELD.format(root=str(ROOT), stages=str(tmp_path), action=action, call=call)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    level = "WARNING" if action == "continue" else "ERROR"
    assert done.stderr.startswith(
        f"[{level}] nothing has moved in rank 0 for 1.9 s, not even its watchdog: held "
    )
    assert (done.returncode, done.stdout) == (code, out)
    assert 'File "<string>", line 12 in <module>' in stalls.read_text()


COMPILES = """
import os, subprocess
os.symlink("/bin/sleep", "cc1plus")
with watching(Watch(Path("."), 0.2, stops=True)), phase("compile"):
    subprocess.run(["./cc1plus", "{seconds}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print("went on")
"""


@pytest.mark.parametrize(("seconds", "code", "out"), [(1, 0, "went on\n"), (20, 1, "")])
def test_a_compiler_may_be_silent_for_longer(seconds: int, code: int, out: str, tmp_path: Path) -> None:
    imports = HELD.partition("keys =")[0].format(root=str(ROOT))
    script = imports + COMPILES.format(seconds=seconds)
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (code, out), done.stderr
    assert re.match(
        r"\[WARNING\] nothing has moved for \d s in: compile\n    compiling \(cc1plus ru", done.stderr
    )
    assert ("[ERROR] nothing has moved for " in done.stderr) == bool(code)


def test_a_stall_can_end_the_run(settings: StageSettings, tmp_path: Path) -> None:
    script = HELD.format(root=str(ROOT), stages=str(tmp_path), action="stop", call="usleep(1)")
    script = script.replace('    print("went on")', "    import time; time.sleep(100)")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 1
    assert re.match(
        r"\[ERROR\] nothing has moved for \d s in: first forward\n    blocked, not comp", done.stderr
    )
    assert "; the run stops (SFT_STALL_SECONDS, SFT_ON_STALL)" in done.stderr


def test_ranks_ask_and_answer_by_files(tmp_path: Path) -> None:
    speaker, other = StallFiles(tmp_path), StallFiles(tmp_path)
    seen = Seen("data", "waiting for data")
    assert other.asked() == 0
    request = speaker.ask()
    assert other.asked() == request
    assert speaker.asked() == 0, "it does not answer itself"
    other.answer(request, Report(1, "load", 3, 2.5, seen, "stack", "here"))
    assert other.asked() == 0
    found = speaker.answers(request, {1, 2}, 0.3, lambda: None)
    assert found == {1: Report(1, "load", 3, 2.5, seen, "stack", "here")}, "rank 2 gave none"
    assert not (tmp_path / TALK).exists()


def test_what_an_ended_run_had_asked_ends_no_other(tmp_path: Path) -> None:
    StallFiles(tmp_path).stop()
    late = StallFiles(tmp_path)
    late.pass_over()
    assert late.asked() == 0
    StallFiles(tmp_path).stop()
    assert late.asked() > 0
    assert late.stopped()


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    files = StallFiles(tmp_path / "file" / "stage")
    assert files.ask() == 0
    files.keep("text", [])


def test_times_are_said_in_the_order_of_a_run() -> None:
    said: list[str] = []
    seconds = {"attach": 0.1, "first forward": 0.25, "load": 61.4, "training": 9.0, "first backward": 0.5}
    assert times_line(seconds) == "  phases: load 61 s, attach 0.10 s; first forward 0.25 s, backward 0.50 s"
    for name, took in {**seconds, "merge": 12.0}.items():
        say_phase(said.append, name, took)
    assert said == ["  load: 61 s", "  merge: 12 s"]


def test_a_long_phase_is_named_while_it_lasts(
    settings: StageSettings, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib.training.watchdog.watchdog.LONG_PHASE", 0.1)
    said: list[str] = []

    def named() -> bool:
        beat()
        said.append(capfd.readouterr().out)
        return "load" in "".join(said)

    with watching(Watch.of(settings, ALONE)):
        with phase("load"):
            eventually(named)
            time.sleep(0.1)
        assert HEART.seconds["load"] >= 0.2
    assert "".join(said) == "  load …\n"
    assert capfd.readouterr() == ("", "")


def test_waiting_for_a_person_is_no_silence(settings: StageSettings, capfd: Any) -> None:
    with watching(Watch.of(settings, ALONE)), for_a_person():
        time.sleep(LIMIT + 0.6)
    assert capfd.readouterr() == ("", "")


STOPPED = """
import sys, time
sys.path.insert(0, {root!r})
from lib.heartbeat import beat, phase
from lib.training.watchdog.watchdog import Watch, watching
from pathlib import Path
with watching(Watch(Path({folder!r}), 0.6, stops=True)), phase("training"):
    print("begun", flush=True)
    for step in range(14):
        time.sleep(0.1)
        {beat}
    print("went on", flush=True)
"""


@pytest.mark.parametrize(("beats", "code"), [("beat()", 0), pytest.param("pass", 1, marks=pytest.mark.slow)])
def test_a_process_that_was_stopped_is_not_ended_when_it_goes_on(
    beats: str, code: int, tmp_path: Path
) -> None:
    """Stopped for longer than any limit, while a stall is to end the run. A stall that is one is found
    all the same: its time goes on where it stood."""
    script = STOPPED.format(root=str(ROOT), folder=str(tmp_path), beat=beats)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGSTOP)
        time.sleep(2.5)
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, err
    assert (out, err) == ("went on\n", "") if code == 0 else "nothing has moved for 1 s in: training" in err


def test_a_phase_in_which_nothing_was_done_is_not_named() -> None:
    seconds = {"tokenise": 0.0, "join processes": 0.001, "merge": 0.004, "load": 0.2, "first forward": 0.001}
    assert times_line(seconds) == "  phases: tokenise 0.00 s, load 0.20 s; first forward 0.00 s"
    assert "merge 3.00 s" in times_line({**seconds, "merge": 3.0})
