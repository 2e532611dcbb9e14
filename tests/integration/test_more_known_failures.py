"""Further rows of the table of known failures through the real command, and evaluations that fail."""

import json
import re
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from provoked import bound_by_permissions, explained, fake_package, limited
from stand_ins import FEW_STEPS, StandIns
from tiny_curriculum import Curriculum
from train_command import ROOT

MakeCurriculum = Callable[[Path], Curriculum]
pytestmark = pytest.mark.slow
PIPES: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
NO_ANSWERS = ("--set", "SFT_GEN_EVAL_SAMPLES=0")
OTHER_TORCH = "raise ImportError('/site/x/_C.so: undefined symbol: _ZN3c106detail14torchCheckFailEPKcS2_j')\n"
# Rank 1 dies as in native code; the other one has to wait for it.
DIES = (
    "import os, signal, time\n"
    "os.kill(os.getpid(), signal.SIGSEGV * int(os.environ.get('RANK', 0)))\n"
    "time.sleep(60)\n"
)


@pytest.mark.parametrize(
    ("name", "code"),
    [("binary of another version", OTHER_TORCH), ("package missing", "import a_package_that_is_not_here\n")],
)
def test_a_package_that_cannot_be_imported(
    new_curriculum: MakeCurriculum, tmp_path: Path, name: str, code: str
) -> None:
    curriculum = new_curriculum(tmp_path / "curriculum")
    broken = fake_package(tmp_path / "site", "trl", code, version="1.16.0")
    result = curriculum.command("--stage", 1, **broken)
    assert result.returncode == 1, result.stdout + result.stderr
    explained(result.stderr, name)
    assert "Traceback" in (curriculum.stage_dir(1) / "failure.log").read_text()


def test_a_rank_whose_native_code_dies(new_curriculum: MakeCurriculum, tmp_path: Path) -> None:
    curriculum = new_curriculum(tmp_path / "curriculum")
    broken = fake_package(tmp_path / "site", "trl", DIES, version="1.16.0")
    result = curriculum.command("--stage", 1, "--nproc", 2, "--set", "SFT_ZERO_STAGE=0", **broken)
    assert result.returncode == 1, result.stdout + result.stderr
    explained(result.stderr, "process died")
    assert "rank 1 failed" in result.stderr
    assert "Signal 11 (SIGSEGV)" in result.stderr


def test_a_compiler_that_fails(new_curriculum: MakeCurriculum, tmp_path: Path) -> None:
    """As a machine has it whose g++ is broken; DeepSpeed builds its operator into an empty folder."""
    curriculum = new_curriculum(tmp_path / "curriculum")
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\ncase $* in *version*) echo 12.2.0 ;; *) exit 1 ;; esac\n")
    compiler.chmod(0o755)
    environ = {"TORCH_EXTENSIONS_DIR": str(tmp_path / "built"), "CXX": str(compiler)}
    result = curriculum.command("--stage", 1, "--nproc", 2, **environ)
    assert result.returncode == 1, result.stdout + result.stderr
    explained(result.stderr, "no compiler")


@pytest.fixture
def rinna(tmp_path: Path, empty_store: Path) -> StandIns:
    made = StandIns(tmp_path)
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns/mlflow.db")
    made.nya_data()
    return made


def chat_rinna(
    made: StandIns, *keys: str, checks: str = "", **environ: str
) -> subprocess.CompletedProcess[str]:
    given = [part for key in (*(f"{k}={v}" for k, v in FEW_STEPS.items()), *keys) for part in ("--set", key)]
    stages = ("--stages-dir", ROOT / "stages/chat-rinna", "--stage", 1)
    check = ("--check", checks) if checks else ()
    return made.command(*stages, *given, *NO_ANSWERS, *check, **environ)


def test_a_row_that_is_longer_than_the_positions_of_the_model(rinna: StandIns, tmp_path: Path) -> None:
    """Refused when the rows are counted, before a weight is read."""
    rinna.rinna()
    row = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "にゃ。" * 700}]}
    (tmp_path / "long.jsonl").write_text(f"{json.dumps(row)}\n" * 8, encoding="utf-8")
    keys = ("SFT_DATASET_ID=long.jsonl", "SFT_DATASET_MIX=", "SFT_MAX_SEQ_LEN=2048", "SFT_VAL_RATIO=0")
    result = chat_rinna(rinna, *keys)
    assert result.returncode == 2, result.stdout + result.stderr
    assert "expected: at most 512, the model's table of positions; the longest row has" in result.stderr
    assert "remedy:   set SFT_MAX_SEQ_LEN=512" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_token_that_the_model_has_no_embedding_for(rinna: StandIns) -> None:
    rinna.rinna(embedded=0.5)
    result = chat_rinna(rinna)
    assert result.returncode == 1, result.stdout + result.stderr
    explained(result.stderr, "index outside a table")


def test_a_tokenizer_whose_package_is_missing(rinna: StandIns, tmp_path: Path) -> None:
    rinna.rinna()
    hidden = tmp_path / "site/sitecustomize.py"
    hidden.parent.mkdir()
    hidden.write_text("import sys\nsys.modules['sentencepiece'] = None\n")
    result = chat_rinna(rinna, PYTHONPATH=str(hidden.parent))
    assert result.returncode == 2, result.stdout + result.stderr
    assert "remedy:   pip install sentencepiece\n" in result.stderr
    assert "Traceback" not in result.stderr
    result = chat_rinna(rinna, checks="--fast", PYTHONPATH=str(hidden.parent))
    assert result.returncode == 2, result.stdout + result.stderr
    assert re.search(
        "^chat template +failed .*expected sentencepiece to be installed", result.stdout, re.MULTILINE
    )
    assert "remedy: pip install sentencepiece" in result.stdout
    result = chat_rinna(rinna, checks="--fast")
    assert re.search("^end token +ok ", result.stdout, re.MULTILINE), result.stdout


def test_a_port_that_is_taken(new_curriculum: MakeCurriculum, tmp_path: Path) -> None:
    """As a scheduler starts rank 0 of two, with the port of a run that still goes on."""
    curriculum = new_curriculum(tmp_path / "curriculum")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(other.getsockname()[1])}
        ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}
        result = curriculum.command("--stage", 1, "--set", "SFT_ZERO_STAGE=0", **meeting, **ranks)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "the port that the processes meet at is taken" in result.stderr
    assert "remedy:   end the earlier run, or choose another MASTER_PORT" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_folder_of_the_stage_that_this_user_may_not_write(
    new_curriculum: MakeCurriculum, tmp_path: Path
) -> None:
    """Found when the first checkpoint is to be written there."""
    curriculum = new_curriculum(tmp_path / "curriculum")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    folder = curriculum.stage_dir(1)
    with curriculum.command.begun(
        "--stage", 1, *NO_ANSWERS, preexec_fn=bound_by_permissions, **pipes
    ) as process:
        for line in process.stdout:
            if "step     1/" in line:
                folder.chmod(0o555)
                break
        process.stdout.read()
        err = process.stderr.read()
    folder.chmod(0o755)
    assert process.returncode == 1, err
    assert "stage 1 failed: not allowed\n    remedy:" in err
    log = re.search(r"log:      (\S+) \(out/lora_stage1/failure.log: Permission denied\)", err)
    assert log, "its own folder takes no log"
    assert "Traceback (most recent call last):" in Path(log[1]).read_text()
    assert "Traceback" not in err


@pytest.mark.parametrize("zero", [0, 2])
def test_a_rank_that_does_not_come_in_time(new_curriculum: MakeCurriculum, tmp_path: Path, zero: int) -> None:
    """One of two hangs; the other gives up after SFT_DDP_TIMEOUT, says why, and the run ends."""
    curriculum = new_curriculum(tmp_path / "curriculum")
    command = replace(curriculum.command, script=ROOT / "tests/integration/stalled_train.py")
    hangs = [{"phase": "step 2", "how": "blocked", "seconds": 200, "rank": 1}]
    keys = ("--set", f"SFT_ZERO_STAGE={zero}", "--set", "SFT_DDP_TIMEOUT=10", "--set", "SFT_STALL_SECONDS=0")
    started = time.monotonic()
    result = command("--stage", 1, "--nproc", 2, *NO_ANSWERS, *keys, STALLS=json.dumps(hangs))
    assert result.returncode == 1, result.stderr
    assert result.stderr.count("stage 1 failed: collective time-out\n    remedy:   look for an earlier") == 1
    assert "Timed out waiting 10000ms" in result.stderr
    assert "Traceback" not in result.stderr
    assert time.monotonic() - started < 150


@pytest.mark.parametrize(("stage", "limit"), [(0, 2500), (1, 2500)])
def test_an_evaluation_that_fails_is_explained(
    trained: Curriculum, tmp_path: Path, stage: int, limit: int
) -> None:
    """Its log is its own; the stage stays complete as it was."""
    curriculum = trained.copy_to(tmp_path / "curriculum")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    small = limited(resource.RLIMIT_FSIZE, limit)
    with curriculum.command.begun("--stage", stage, "--evaluate-only", preexec_fn=small, **pipes) as process:
        out, err = process.communicate(timeout=300)
    assert process.returncode == 1, out + err
    assert f"evaluating stage {stage} failed: disk full\n    remedy:" in err
    assert f"log:      out/lora_stage{stage}/evaluation_failure.log" in err
    assert "Traceback" not in err
    assert curriculum.status()[0].startswith("stage 1  complete")
    curriculum.train(stage, "--evaluate-only")
    assert not (curriculum.stage_dir(stage) / "evaluation_failure.log").exists()
