"""Under torchrun one process runs all stages: a model must not stay in memory beside the next one."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_curriculum import Curriculum
from train_command import clean_environment

SCRIPT = Path(__file__).with_name("watched_stages.py")


@pytest.mark.slow
@pytest.mark.parametrize("zero", ["2", "0"])
def test_each_stage_lets_go_of_its_model(
    zero: str, new_curriculum: Callable[[Path], Curriculum], tmp_path: Path
) -> None:
    folder = new_curriculum(tmp_path / "curriculum").folder
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*launcher, SCRIPT, "--stage", "1-2", "--set", f"SFT_ZERO_STAGE={zero}"]
    done = subprocess.run(
        command, cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("models in memory: 0") == 4, done.stdout
    assert "Removed grad acc hooks" not in done.stdout + done.stderr
