"""What the system knows of a process that hangs. Every case is this process, hanging for real."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lib.training.evidence import SAMPLE_SECONDS, Evidence, collect
from lib.training.stall_verdict import judge

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
HANGS = 1.2 * SAMPLE_SECONDS


def seen_while(hang: Callable[[], None]) -> Evidence:
    with ThreadPoolExecutor(1) as other:
        found = other.submit(collect)
        hang()
        return found.result()


def test_computing() -> None:
    def compute() -> None:
        until = time.monotonic() + HANGS
        while time.monotonic() < until:
            sum(range(100))

    found = seen_while(compute)
    assert found.cpu > 0.05, "one core, however busy the machine"
    assert found.frames[-1].function == "compute"
    assert "in compute" in found.stacks
    assert "thread MainThread" in found.stacks


def test_blocked() -> None:
    found = seen_while(lambda: time.sleep(HANGS))
    assert found.cpu < 0.3
    assert judge(found, processes=1).kind == "blocked"


def test_a_read_that_gives_nothing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)
    threading.Timer(HANGS, os.write, (descriptor, b"x")).start()
    found = seen_while(lambda: len(os.read(descriptor, 1)) or None)  # type: ignore[arg-type, return-value]
    os.close(descriptor)
    assert found.file_call == f"read of {path}"
    assert judge(found, processes=1).kind == "disk"


def test_a_compiler_below_this_process_is_found(tmp_path: Path) -> None:
    (tmp_path / "cc1plus").symlink_to("/bin/sleep")
    command = ["sh", "-c", f"{tmp_path}/cc1plus {HANGS}; true"]
    found = seen_while(lambda: subprocess.run(command, check=True) and None)  # type: ignore[func-returns-value]
    assert found.building == "cc1plus"
