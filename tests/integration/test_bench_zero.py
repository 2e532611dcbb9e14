"""bench/zero.py runs through, and does not call an idle expert a success that it has not seen."""

import json
import subprocess
import sys

import pytest
from train_command import ROOT, clean_environment


@pytest.mark.slow
def test_two_ranks_and_one_are_compared() -> None:
    command = [sys.executable, "-m", "bench.zero", "--rounds", "1", "--steps", "4"]
    done = subprocess.run(
        command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["hung"] == []
    assert line["ratio"] > 0
    assert all(passes > 0 for passes in line["idle_expert"].values())
