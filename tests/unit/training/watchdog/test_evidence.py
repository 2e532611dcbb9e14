"""What the system knows of a process that hangs. Every case is this process, hanging for real."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from eventually import eventually

from lib.training.watchdog import evidence
from lib.training.watchdog.evidence import Evidence, collect
from lib.training.watchdog.stall_verdict import judge

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def seen_while(
    hang: Callable[[Future[Evidence]], object], begun: Callable[[], object] = lambda: True
) -> Evidence:
    """What another thread sees of this one, which hangs until that is done; it looks once that has begun."""

    def look() -> Evidence:
        eventually(begun)
        return collect()

    with ThreadPoolExecutor(1) as other:
        found = other.submit(look)
        hang(found)
        return found.result()


def test_computing() -> None:
    def compute(seen: Future[Evidence]) -> None:
        while not seen.done():
            sum(range(100))

    found = seen_while(compute)
    assert found.cpu > 0.02, "one core, however busy the machine"
    assert "compute" in [frame.function for frame in found.frames]
    assert "in compute" in found.stacks
    assert "thread MainThread" in found.stacks


def test_blocked() -> None:
    found = seen_while(lambda seen: seen.result())
    assert found.cpu < 0.3
    assert judge(found, processes=1).kind == "blocked"


def test_a_read_that_gives_nothing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)

    def read(seen: Future[Evidence]) -> None:
        seen.add_done_callback(lambda _: os.write(descriptor, b"x"))
        os.read(descriptor, 1)

    found = seen_while(read, begun=evidence._file_call)
    os.close(descriptor)
    assert found.file_call == f"read of {path}"
    assert judge(found, processes=1).kind == "disk"


def test_a_compiler_below_this_process_is_found(tmp_path: Path) -> None:
    (tmp_path / "cc1plus").symlink_to("/bin/sleep")
    below = ["sh", "-c", f"{tmp_path}/cc1plus 60 & trap 'kill $!' TERM; wait"]
    with subprocess.Popen(below) as process:
        found = seen_while(
            lambda seen: seen.result(),
            begun=lambda: "cc1plus" in map(evidence._name, evidence._descendants()),
        )
        process.terminate()
    assert found.building == "cc1plus"
