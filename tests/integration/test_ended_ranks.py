"""A rank that ends takes the others with it: who says so, and how, under each kind of launcher."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from provoked import explained
from tiny_curriculum import Curriculum
from train_command import TRAIN, clean_environment

MakeCurriculum = Callable[[Path], Curriculum]
pytestmark = pytest.mark.slow
PIPES: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
NO_ANSWERS = ("--set", "SFT_GEN_EVAL_SAMPLES=0")
ENDLESS = (
    *NO_ANSWERS, "--set", "SFT_MAX_STEPS=100000", "--set", "SFT_EVAL_STEPS=100000",
    "--set", "SFT_SAVE_STEPS=100000", "--set", "SFT_VAL_RATIO=0", "--set", "SFT_ZERO_STAGE=0",
)  # fmt: skip


def without_rank_1(process: "subprocess.Popen[str]") -> str:
    """What the command says after its second process was killed at step 2; it ends with 1 within a minute."""
    assert process.stdout is not None
    assert process.stderr is not None
    for line in process.stdout:
        if "step     2/" in line:
            break
    (victim,) = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if child.environ().get("LOCAL_RANK") == "1" and "train.py" in " ".join(child.cmdline())
    ]
    victim.kill()
    killed = time.monotonic()
    process.stdout.read()
    said = process.stderr.read()
    assert process.wait(timeout=60) == 1, said
    assert time.monotonic() - killed < 60
    return said


def test_a_rank_that_is_killed_is_said_once_and_ends_the_other(
    new_curriculum: MakeCurriculum, tmp_path: Path
) -> None:
    curriculum = new_curriculum(tmp_path / "curriculum")
    with curriculum.command.begun("--stage", 1, "--nproc", 2, *ENDLESS, **PIPES) as process:
        said = without_rank_1(process)
    explained(said, "killed from outside")
    assert "rank 1 failed" in said
    assert "interrupted" not in said
    assert said.splitlines()[-1].startswith("    said:     Signal 9 (SIGKILL)"), "nothing comes after it"


def test_under_torchrun_the_reason_is_said_and_stands_in_its_table(
    new_curriculum: MakeCurriculum, tmp_path: Path
) -> None:
    curriculum = new_curriculum(tmp_path / "curriculum")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", TRAIN]

    def started(*arguments: object) -> "subprocess.Popen[str]":
        line = [*map(str, (*torchrun, "--stage", 1, *arguments))]
        return subprocess.Popen(line, cwd=curriculum.folder, env=clean_environment(), **PIPES)

    with started(*ENDLESS) as process:
        said = without_rank_1(process)
    assert re.search(
        r"^\[rank 0\] ended, because rank 1 on \S+ ended without a word: it was killed", said, re.M
    )
    assert "interrupted" not in said
    with started("--set", "SFT_LR=fast") as process:
        said = process.communicate(timeout=100)[1]
    table = said[said.rindex("Root Cause (first observed failure)") :]
    assert "traceback : --set: SFT_LR\n      given:    fast\n" in table


# A machine on which no program may listen: processes notice each other's end by their connections alone.
NO_LISTENING = (
    "import socket\ndef refused(*_, **__): raise PermissionError(1, 'Operation not permitted')\n"
    "socket.create_server = refused\n"
)


def test_a_rank_whose_neighbour_has_ended(new_curriculum: MakeCurriculum, tmp_path: Path) -> None:
    """As a scheduler starts two, where nobody else could say how the other one ended."""
    curriculum = new_curriculum(tmp_path / "curriculum")
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(NO_LISTENING)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "PYTHONPATH": str(tmp_path / "site"),
    }  # fmt: skip
    line = [sys.executable, str(TRAIN), "--stage", "1", *ENDLESS]

    def started(rank: str) -> "subprocess.Popen[str]":
        environ = {**clean_environment(), **common, "RANK": rank, "LOCAL_RANK": rank}
        return subprocess.Popen(line, cwd=curriculum.folder, env=environ, **PIPES)

    with started("0") as first, started("1") as second:
        said = ""
        while "step     2/" not in said:
            said += first.stdout.readline()
        second.send_signal(signal.SIGKILL)
        first.stdout.read()
        err = first.stderr.read()
    assert "[WARNING] no connection of one's own between the processes" in said
    assert first.returncode == 1
    explained(err, "another rank ended")
    assert "[rank 0] stage 1 failed" in err
    assert "look for the message of the rank that ended first" in err
    assert "Traceback" in (curriculum.stage_dir(1) / "failure_rank0.log").read_text()
