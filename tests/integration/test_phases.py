"""The phases of a real run: their times, and one that hangs."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tiny_curriculum import STAGES, Curriculum
from train_command import ROOT

SECONDS = r"\d+(\.\d\d)? s"
FIRST = rf"; first forward {SECONDS}, backward {SECONDS}, optimizer step {SECONDS}$"


def test_every_stage_says_its_times_in_one_line(trained: Curriculum) -> None:
    said = (trained.folder / "said.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in said if line.startswith("  phases: ")]
    assert len(lines) == len(STAGES)
    always = {name: f"{name} {SECONDS}, " for name in ("tokenise", "load")}
    maybe = {name: f"({name} {SECONDS}, )?" for name in ("join processes", "merge", "prove merge")}
    of_one = f"{always['tokenise']}{maybe['join processes']}{always['load']}attach {SECONDS}"
    merged = (
        f"{always['tokenise']}{maybe['join processes']}{maybe['merge']}{always['load']}"
        f"{maybe['prove merge']}attach {SECONDS}"
    )
    for line, before in zip(lines, (of_one, merged, merged), strict=True):
        assert re.match(rf"  phases: {before}{FIRST}", line), line
    assert all("prove merge" in line for line in lines[1:]), "it was merged just now"


def test_record_and_tracker_have_the_times(trained: Curriculum) -> None:
    from mlflow import MlflowClient

    record = trained.record(2)
    times = record["training"]["phase_seconds"]
    assert {"tokenise", "merge", "load", "attach", "first forward", "first optimizer step"} <= times.keys()
    run = MlflowClient(f"sqlite:///{trained.folder}/mlruns/mlflow.db").get_run(record["mlflow_run_id"])
    logged: dict[str, Any] = run.data.metrics
    assert {name: logged[f"phase_seconds/{name.replace(' ', '_')}"] for name in times} == times


def test_a_run_that_moves_leaves_nothing_of_the_watchdog(trained: Curriculum) -> None:
    assert not list(trained.folder.rglob("stalls*"))


def test_slow_experts_at_step_0(new_curriculum: Callable[[Path], Curriculum], tmp_path: Path) -> None:
    """What the user's run hung at for nine minutes, without a word. In other ways and places:
    tests/reliability/test_stalls.py."""
    curriculum = new_curriculum(tmp_path / "curriculum")
    curriculum.set(1, SFT_MAX_STEPS=1, SFT_GEN_EVAL_SAMPLES=0, SFT_GEN_EVAL_BEFORE=0, SFT_STALL_SECONDS=1)
    stalls = [{"phase": "first forward", "how": "experts", "seconds": 4.6}]
    command = replace(curriculum.command, script=ROOT / "tests/integration/stalled_train.py")
    result = command("--stage", 1, STALLS=json.dumps(stalls))
    assert result.returncode == 0, result.stderr
    assert re.search(
        r"\[WARNING\] nothing has moved for [1-4] s in: first forward\n"
        r"    still computing: slow experts \(\d\.\d cores busy\), in stalled_train.py:\d+ computing .*\n"
        r"    stacks: out/lora_stage1/stalls.txt; the run goes on \(SFT_STALL_SECONDS, SFT_ON_STALL\)\n",
        result.stderr,
    ), result.stderr
    assert "  it moves again\n" in result.stderr
    assert re.search(r"; first forward [4-6]\.\d\d s, backward ", result.stdout)
