"""Further rows of the table of known failures through the real command: packages, processes, tables."""

import json
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from provoked import fake_package
from stand_ins import FEW_STEPS, RINNA, StandIns
from tiny_curriculum import Curriculum
from train_command import ROOT

MakeCurriculum = Callable[[Path], Curriculum]
pytestmark = pytest.mark.slow
NO_ANSWERS = ("--set", "SFT_GEN_EVAL_SAMPLES=0")
OTHER_TORCH = "raise ImportError('/site/x/_C.so: undefined symbol: _ZN3c106detail14torchCheckFailEPKcS2_j')\n"
# Rank 1 dies as in native code; the other one has to wait for it.
DIES = (
    "import os, signal, time\n"
    "os.kill(os.getpid(), signal.SIGSEGV * int(os.environ.get('RANK', 0)))\n"
    "time.sleep(60)\n"
)


def explained(said: str, name: str) -> None:
    """The remedy first and once, no traceback on the screen."""
    assert len(re.findall(rf"failed: {name}\n    remedy:", said)) == 1, said
    assert "Traceback" not in said


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


def test_a_row_that_is_longer_than_the_positions_of_the_model(tmp_path: Path, empty_store: Path) -> None:
    made = StandIns(tmp_path)
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns/mlflow.db")
    made.rinna()
    made.nya_data()
    row = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "にゃ。" * 700}]}
    (tmp_path / "long.jsonl").write_text(f"{json.dumps(row)}\n" * 8, encoding="utf-8")
    keys = {**FEW_STEPS, "SFT_DATASET_ID": "long.jsonl", "SFT_MAX_SEQ_LEN": 2048, "SFT_VAL_RATIO": 0}
    given = [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]
    stages = ("--stages-dir", ROOT / "stages/chat-rinna", "--stage", 1)
    result = made.command(*stages, *given, "--set", "SFT_DATASET_MIX=", *NO_ANSWERS)
    assert (tmp_path / RINNA).is_dir()
    assert result.returncode == 1, result.stdout + result.stderr
    explained(result.stderr, "index outside a table")


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
    explained(result.stderr, "port in use")
