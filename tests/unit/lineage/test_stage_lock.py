"""One run of a stage at a time, and none that is dead."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lib.files import held_file
from lib.lineage.record import RUNNING
from lib.planning.obstacles import preconditions
from lib.settings import InputError

ROOT = Path(__file__).parents[3]
HOLDING = (
    "import sys, time; from pathlib import Path; from lib.files import held_file\n"
    "with held_file(Path(sys.argv[1]), sys.argv[2]):\n    print('held', flush=True); time.sleep(60)\n"
)


@contextmanager
def held(path: Path, note: str) -> Iterator[Any]:
    """`path` locked by another process, which is killed in the end."""
    command = [sys.executable, "-c", HOLDING, str(path), note]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_running_as_long_as_its_process_lives(curriculum: Any) -> None:
    curriculum.stage(1)
    folder = curriculum.folder(1)
    folder.mkdir(parents=True)
    with held(folder / RUNNING, json.dumps({"pid": 4711, "host": socket.gethostname()})):
        status = curriculum.surveyed(1).status
        assert (status.state, status.summary) == ("running", "process 4711")
        with pytest.raises(InputError, match="process 4711 is training it"):
            preconditions(curriculum.surveyed(1))
        with pytest.raises(BlockingIOError), held_file(folder / RUNNING, ""):
            pytest.fail("two at once")
        assert curriculum.surveyed(1).status.state == "running"
    assert (folder / RUNNING).exists()  # killed, it deletes nothing and holds nothing
    assert curriculum.state(1) == "interrupted"


@pytest.mark.parametrize(
    ("note", "who"),
    [
        ("", "another process"),
        ("[]", "another process"),
        (json.dumps({"pid": 5, "host": "elsewhere"}), "process 5 on elsewhere"),
    ],
)
def test_a_run_that_cannot_be_named_is_a_run(note: str, who: str, curriculum: Any) -> None:
    curriculum.stage(1)
    folder = curriculum.folder(1)
    folder.mkdir(parents=True)
    with held(folder / RUNNING, note):
        assert curriculum.surveyed(1).status.summary == who


def test_a_note_that_nobody_holds_says_nothing(curriculum: Any) -> None:
    """Process ids are given again: a living process with the noted one need not be a run."""
    curriculum.stage(1)
    folder = curriculum.folder(1)
    folder.mkdir(parents=True)
    (folder / RUNNING).write_text(json.dumps({"pid": os.getppid(), "host": socket.gethostname()}))
    assert curriculum.state(1) == "interrupted"
