"""A disk that is full while a run saves: said with a remedy, nothing lost, gone on with when it has space."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from forked_runs import ForkServer
from killed_runs import adapters, record
from tiny_curriculum import Curriculum, make_curriculum, texts
from tiny_model import make_model

KEYS: dict[str, Any] = {"SFT_MAX_STEPS": 6, "SFT_SAVE_STEPS": 2, "SFT_EVAL_STEPS": 2}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("base") / "tiny-moe", texts())


def begun(folder: Path, base: Path) -> Curriculum:
    curriculum = make_curriculum(folder, base)
    curriculum.set(1, **KEYS)
    return curriculum


def test_a_file_size_limit(server: ForkServer, base: Path, tmp_path: Path) -> None:
    """The optimizer's state (86 kB) does not fit, whatever else does."""
    whole, limited = begun(tmp_path / "whole", base), begun(tmp_path / "limited", base)
    assert server.run(whole.folder, "--stage", 1) == 0
    assert server.run(limited.folder, "--stage", 1, largest_file=60_000) == 1
    said = (limited.folder / "said.txt").read_text()
    assert "Traceback" not in said
    assert "remedy:   free some" in said
    assert "ulimit" in said
    assert not list(limited.stage_dir(1).glob("checkpoint-*"))
    assert limited.status()[0] == "stage 1  interrupted  before its first checkpoint"
    assert server.run(limited.folder, "--stage", 1) == 0
    assert adapters([whole.stage_dir(1)]) == adapters([limited.stage_dir(1)])
    assert record(whole.stage_dir(1)) == record(limited.stage_dir(1))


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [200, 400, 600, 800])
def test_a_small_disk(kilobytes: int, server: ForkServer, base: Path, tmp_path: Path) -> None:
    """It is full at the first, the second, … checkpoint; afterwards it is larger."""
    whole, small = begun(tmp_path / "whole", base), begun(tmp_path / "small", base)
    small.set(1, SFT_OUT_LORA_DIR=tmp_path / "disk" / "lora")
    (tmp_path / "disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(tmp_path / "disk")]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only the superuser of a machine mounts a disk")
    try:
        assert server.run(whole.folder, "--stage", 1) == 0
        assert server.run(small.folder, "--stage", 1) == 1
        assert "remedy:   free some" in (small.folder / "said.txt").read_text()
        grown = ["mount", "-o", "remount,size=50m", str(tmp_path / "disk")]
        subprocess.run(grown, check=True)
        assert server.run(small.folder, "--stage", 1) == 0
        assert adapters([whole.stage_dir(1)]) == adapters([tmp_path / "disk/lora_stage1"])
    finally:
        subprocess.run(["umount", str(tmp_path / "disk")], check=True)
