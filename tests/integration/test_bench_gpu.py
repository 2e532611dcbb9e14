"""bench/gpu.py runs here in small, so that it does not fail where there is a GPU."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from train_command import ROOT, clean_environment

from bench.gpu import Clock, guarded
from bench.gpu_estimates import time_compared, verdict
from bench.gpu_sizes import FULL
from bench.gpu_steps import shape_of
from lib.training.sizing.cards import CARDS
from lib.training.sizing.speed import GPU_EFFICIENCY


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
    # On the CPU the peak is the whole process's; the time is compared all the same.
    assert line["estimates"]["memory"] == {"worst_error": None, "within": None}
    assert isinstance(line["estimates"]["time"]["worst_error"], float)


def test_estimates_are_held_against_what_was_measured() -> None:
    """As on a GPU: a step of 8,192 tokens by the numbers of `tests/unit/training/sizing/test_flops.py`."""
    shape = shape_of(FULL, SimpleNamespace(type="cuda"), 1024, checkpointing=False)
    h100 = next(card for card in CARDS if card.name == "H100")
    planned = time_compared(shape, 1.0, h100)["estimated_tokens_per_second"]
    exact = time_compared(shape, planned, h100)
    assert exact["time_error"] == 0
    assert exact["efficiency"] == GPU_EFFICIENCY
    assert "not in lib/training/sizing/cards.py" in time_compared(shape, planned, None)["time"]
    steps = {
        "4 layers": {"memory_error": 0.14, **time_compared(shape, planned * 1.1, h100)},
        "48 layers": {"memory_error": -0.16, **time_compared(shape, planned * 0.9, h100)},
        "all layers": "not run: estimated at 90.0 GB",
    }
    found = verdict(steps)
    assert found["memory"] == {"worst_error": -0.16, "within": False}
    assert found["time"] == {"worst_error": pytest.approx(0.1, abs=0.002), "within": True}
    assert found["efficiency"]["measured"] == [0.225, 0.275]
    assert verdict({})["memory"] == {"worst_error": None, "within": None}


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
