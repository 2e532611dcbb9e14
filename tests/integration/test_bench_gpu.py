"""bench/gpu.py runs here in small, so that it does not fail where there is a GPU."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from train_command import ROOT, clean_environment

from bench.gpu import Clock, guarded


def bench(*arguments: str) -> list[str]:
    command = [sys.executable, "-m", "bench.gpu", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_part_runs_in_small_on_the_cpu() -> None:
    *said, last = bench("--device", "cpu", "--small")
    line = json.loads(last)
    assert line["unfinished"] == []
    assert set(line["parts"]) == {"correctness", "block", "loss", "steps"}
    assert line["ratio"] > 0
    assert len(said) >= 12
    for name, found in line["parts"]["correctness"].items():
        if name.startswith("grouped"):
            assert found is True
        elif name.startswith("gradient error"):
            assert found < (1e-6 if "float32" in name else 1e-2), name
    assert any("3 layers" in name and "recomputed" in name for name in line["parts"]["steps"])


def test_without_a_gpu_it_says_so_and_that_is_no_failure() -> None:
    said, last = bench()
    assert "no CUDA device" in said
    assert json.loads(last) == {"bench": "gpu", "ratio": None, "skipped": "there is no CUDA device"}


def endless(*_: Any) -> Iterator[dict[str, Any]]:
    yield {"first": 1}
    time.sleep(60)


def broken(*_: Any) -> Iterator[dict[str, Any]]:
    yield {"first": 1}
    raise RuntimeError("CUDA error: an illegal memory access")


def test_what_was_found_before_the_time_ran_out_or_a_part_failed_is_kept() -> None:
    import signal

    from bench.gpu import alarm

    before = signal.signal(signal.SIGALRM, lambda *_: alarm())
    try:
        late = guarded("late", endless, None, None, Clock(5.3))
        failed = guarded("broken", broken, None, None, Clock(60))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert (late["first"], late["unfinished"]) == (1, "out of time")
    assert (failed["first"], failed["unfinished"]) == (
        1,
        "RuntimeError: CUDA error: an illegal memory access",
    )
    assert guarded("none", endless, None, None, Clock(1)) == {"unfinished": "no time left"}
