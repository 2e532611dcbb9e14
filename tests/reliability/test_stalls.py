"""Runs of the real command that hang: in each phase, and on one of two ranks. What is said, how soon, and
that training goes on afterwards."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_curriculum import Curriculum, make_curriculum, rows, texts
from tiny_model import make_model
from train_command import ROOT

SCRIPT = ROOT / "tests/integration/stalled_train.py"
LIMIT, HANGS = 1.5, 4.5
"""Seconds: of silence until something is said, and of each stall."""
HANGS_OF_TWO = 7.5
"""The other rank goes on to where it has to wait, importing what it needs: only then nothing moves."""
AT_LATEST = 3
"""Seconds of silence that the first word may take, as it says itself, on a machine that others use."""
# Phase, how it hangs, what is said of the process that does.
STALLS = [
    ("tokenise", "data", "waiting for data (0."),
    ("join processes", "blocked", "blocked, not computing"),
    ("merge", "disk", "waiting for disk (read of "),
    ("load", "disk", "waiting for disk (read of "),
    ("prove merge", "computing", "still computing ("),
    ("attach", "blocked", "blocked, not computing"),
    ("first forward", "experts", "still computing: slow experts ("),
    ("first backward", "computing", "still computing ("),
    ("first optimizer step", "compiling", "compiling (cc1plus runs)"),
    ("step 3", "data", "waiting for data (0."),
    ("evaluate", "computing", "still computing ("),
    ("save", "disk", "waiting for disk (read of "),
]
OF_TWO = [
    ("attach", "disk", "waiting for disk (read of "),
    ("first forward", "experts", "still computing: slow experts ("),
    ("step 3", "data", "waiting for data (0."),
    ("evaluate", "blocked", "blocked, not computing"),
]
needs_compiler = pytest.mark.skipif(
    shutil.which("c++") is None and shutil.which("g++") is None,
    reason="DeepSpeed compiles its CPU communication with a C++ compiler, and there is none",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("base") / "tiny-moe", texts())


@pytest.fixture
def curriculum(base: Path, tmp_path: Path) -> Curriculum:
    """Nothing has run, and nothing is evaluated that was not asked for."""
    made = make_curriculum(tmp_path / "curriculum", base)
    for stage in (1, 2):
        made.set(stage, SFT_STALL_SECONDS=LIMIT, SFT_GEN_EVAL_BEFORE=0, SFT_TENSORBOARD=0)
    return made


def hanging(
    curriculum: Curriculum,
    stalls: Sequence[tuple[str, str, str]],
    *arguments: object,
    entry: str = "train",
    **more: Any,
) -> "subprocess.CompletedProcess[str]":
    told = [{"phase": phase, "how": how, "seconds": HANGS} | more for phase, how, _ in stalls]
    command = replace(curriculum.command, script=SCRIPT)
    return command(*arguments, STALLS=json.dumps(told), ENTRY=entry)


def verdicts(said: str) -> dict[str, tuple[int, str]]:
    """Of what was said of a place first: seconds of silence, and the lines."""
    found: dict[str, tuple[int, str]] = {}
    pattern = r"\[\w+\] nothing has moved for (\d+) s in: (.*)\n((?:    .*\n)+)"
    for seconds, where, lines in re.findall(pattern, said):
        found.setdefault(where.removeprefix("training, "), (int(seconds), lines))
    return found


def weights(curriculum: Curriculum, stage: int) -> bytes:
    return (curriculum.stage_dir(stage) / "adapter_model.safetensors").read_bytes()


def assert_said_in_time(said: str, stalls: Sequence[tuple[str, str, str]]) -> None:
    found = verdicts(said)
    for phase, _, words in stalls:
        seconds, lines = found[phase]
        assert seconds <= AT_LATEST, phase
        assert words in lines.splitlines()[0], phase


@pytest.mark.slow
def test_in_each_phase(curriculum: Curriculum, tmp_path: Path) -> None:
    """And the adapter that comes of it is that of a run that did not hang, byte by byte."""
    curriculum.train(1)
    calm = curriculum.copy_to(tmp_path / "calm")
    calm.train(2)
    result = hanging(curriculum, STALLS, "--stage", 2)
    assert result.returncode == 0, result.stderr
    assert_said_in_time(result.stderr, STALLS)
    assert weights(curriculum, 2) == weights(calm, 2)
    kept = (curriculum.stage_dir(2) / "stalls.txt").read_text()
    assert kept.count("-- rank 0, ") >= len(STALLS)
    for phase, how, _ in STALLS:
        stacks = kept.split(f"in: {'training, ' * phase.startswith('step')}{phase}\n")[1]
        assert f"in {'_try_wait' if how == 'compiling' else how}\n" in stacks.replace("__getitem__", "data")


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("zero_stage", [2, 0])
@pytest.mark.parametrize("rank", [0, 1])
def test_on_one_of_two_ranks(curriculum: Curriculum, rank: int, zero_stage: int) -> None:
    """Who waits, for whom, and what that one does; both stacks are in the file."""
    arguments = ("--stage", 1, "--nproc", 2, "--set", f"SFT_ZERO_STAGE={zero_stage}")
    result = hanging(curriculum, OF_TWO, *arguments, rank=rank, seconds=HANGS_OF_TWO)
    assert result.returncode == 0, result.stderr
    for phase, _, words in OF_TWO:
        of_it = [
            line for line in result.stderr.splitlines() if f"    rank {rank} (" in line and words in line
        ]
        assert any(f"{phase}): " in line for line in of_it), phase
    waits = [
        line for line in result.stderr.splitlines() if f"    rank {1 - rank} waits in a collective" in line
    ]
    assert len(waits) >= len(OF_TWO) - 1
    assert all(line.endswith(f", for rank {rank}") for line in waits)
    kept = (curriculum.stage_dir(1) / "stalls.txt").read_text()
    assert "-- rank 0, " in kept
    assert "-- rank 1, " in kept


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(("rank", "how"), [(0, "blocked"), (1, "blocked"), (1, "held"), (0, "held")])
def test_two_ranks_that_are_to_stop(curriculum: Curriculum, rank: int, how: str) -> None:
    """Both are gone within seconds, and the same command goes on from the last checkpoint. The limit is one
    that a step of a machine which others use does not reach."""
    stalls = [{"phase": "step 4", "how": how, "seconds": 300, "rank": rank}]
    command = replace(curriculum.command, script=SCRIPT)
    arguments = ("--stage", 1, "--nproc", 2, "--set", "SFT_STALL_SECONDS=12")
    result = command(*arguments, "--set", "SFT_ON_STALL=stop", STALLS=json.dumps(stalls))
    assert result.returncode == 1, result.stderr
    assert "nothing has moved" in result.stderr
    assert curriculum.status()[0] == "stage 1  interrupted  at step 2", result.stderr
    assert "going on from step 2" in command.done(*arguments, STALLS="[]")


@pytest.mark.slow
@needs_compiler
def test_two_ranks_tokenise_once(curriculum: Curriculum, tmp_path: Path) -> None:
    """A data set that is large enough to be kept: one rank does it, the other reads what that one did."""
    long = [
        {
            "messages": [
                *row["messages"][:1],
                {**row["messages"][1], "content": f"Output:\n{n} " + "amber " * 900},
            ]
        }
        for n, row in enumerate(rows(1600))
    ]
    curriculum.write_rows("general.jsonl", long)
    curriculum.set(1, SFT_MAX_SEQ_LEN=4096, SFT_MAX_STEPS=1, SFT_CACHE_DIR=tmp_path / "cache")
    curriculum.set(1, SFT_GEN_EVAL_SAMPLES=0, SFT_EVAL_STEPS=9, SFT_VAL_RATIO=0)
    result = curriculum.command("--stage", 1, "--nproc", 2)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("tokenising general.jsonl: ") == 1


@pytest.mark.slow
def test_evaluations_answers_and_exports_are_watched_too(curriculum: Curriculum) -> None:
    curriculum.train(1)
    command = replace(curriculum.command, script=SCRIPT)
    of_evaluation = [STALLS[3], STALLS[10]]
    for stage in (0, 1):
        told = json.dumps([{"phase": p, "how": how, "seconds": HANGS} for p, how, _ in of_evaluation])
        result = command("--stage", stage, "--evaluate-only", STALLS=told)
        assert result.returncode == 0, result.stderr
        assert_said_in_time(result.stderr, of_evaluation)
        assert (curriculum.stage_dir(stage) / "stalls.txt").exists()
    of_answers = [STALLS[3], ("answer", "computing", "still computing (")]
    told = json.dumps([{"phase": p, "how": how, "seconds": HANGS} for p, how, _ in of_answers])
    question = ("--stage", 1, "--prompt", "Write amber as toml.", "--max-new-tokens", 5)
    result = command(*question, ENTRY="infer", STALLS=told)
    assert result.returncode == 0, result.stderr
    assert_said_in_time(result.stderr, of_answers)
    assert "nothing has moved" not in result.stdout
    assert (curriculum.folder / "stalls.txt").exists()
    of_export = [STALLS[2]]
    result = hanging(curriculum, of_export, "--stage", 1, "--to", "exported/model", entry="export")
    assert result.returncode == 0, result.stderr
    assert_said_in_time(result.stderr, of_export)
    assert sorted(path.name for path in (curriculum.folder / "exported").iterdir()) == ["model", "stalls.txt"]
