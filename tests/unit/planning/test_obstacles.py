"""What keeps a stage from running: pickles in place of weights, links where it writes."""

from pathlib import Path
from typing import Any

import pytest

from lib.planning.obstacles import obstacles


def test_a_plan_refuses_pickles_too(curriculum: Any) -> None:
    (curriculum.base / "pytorch_model.bin").write_bytes(b"")
    curriculum.stage(1)
    curriculum.stage(2, SFT_STRICT=0)
    first = curriculum.folder(1)
    first.mkdir(parents=True)
    (first / "adapter_model.bin").write_bytes(b"")
    problems, _ = obstacles(curriculum.surveyed(2))
    assert [problem.key for problem in problems] == ["SFT_BASE_MODEL", "SFT_OUT_LORA_DIR"]
    assert all("safetensors" in problem.remedy for problem in problems)
    (curriculum.base / "model.safetensors").write_bytes(b"")
    assert [problem.key for problem in obstacles(curriculum.surveyed(1))[0]] == []


@pytest.mark.parametrize("name", ["lora_stage1", "lora_stage1/checkpoint-2", "lora_stage1_merged_base"])
def test_a_link_where_the_stage_writes_is_refused(name: str, curriculum: Any, tmp_path: Path) -> None:
    curriculum.stage(1)
    link = curriculum.root / "out" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path)
    (problem,) = obstacles(curriculum.surveyed(1))[0]
    assert (problem.where, problem.key) == (str(link), "SFT_OUT_LORA_DIR")
    assert str(tmp_path) in problem.value


def test_a_folder_above_may_be_a_link(curriculum: Any, tmp_path: Path) -> None:
    """The user's own choice of a disk."""
    curriculum.stage(1)
    (tmp_path / "disk").mkdir()
    (curriculum.root / "out").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "lora_stage1").mkdir()
    assert obstacles(curriculum.surveyed(1))[0] == []
