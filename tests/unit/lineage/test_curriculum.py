import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from lib.lineage import curriculum as survey_module
from lib.lineage import stage_lock
from lib.lineage.curriculum import choose_stages, survey, with_base
from lib.model import base_files
from lib.planning import obstacles as obstacles_module
from lib.planning.obstacles import obstacles, preconditions, unwritable_problems
from lib.settings import InputError, ModelSettings


@pytest.fixture
def stages(tmp_path: Path) -> Path:
    for number in (1, 2, 3, 10):
        (tmp_path / f"stage{number}.env").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2", (2,)), ("1-3", (1, 2, 3)), ("3-3", (3,)), ("all", (1, 2, 3, 10)), ("7", (7,))],
)
def test_choose_stages(text: str, expected: tuple[int, ...], stages: Path) -> None:
    """A number without a file is chosen too: reading its settings says what exists."""
    assert choose_stages(text, stages) == expected


@pytest.mark.parametrize("text", ["0", "3-1", "two", "1,2", "-1", "1-", " 1", "1.5", "", "ALL", "01", "²"])
def test_anything_else_is_refused_with_what_exists(text: str, stages: Path) -> None:
    with pytest.raises(InputError) as caught:
        choose_stages(text, stages)
    (problem,) = caught.value.problems
    assert (problem.key, problem.value) == ("--stage", text)
    assert "1, 2, 3, 10" in problem.remedy


def test_a_range_over_a_gap_says_which_file_is_missing(curriculum: Any) -> None:
    for number in (1, 3):
        curriculum.stage(number)
    chosen = choose_stages("1-3", curriculum.stages)
    with pytest.raises(InputError, match=r"stage2\.env"):
        survey(curriculum.stages, chosen, chosen=chosen, environ={})


def test_a_lenient_stage_says_the_documented_warning(curriculum: Any) -> None:
    """Word for word as the user's guide has it."""
    for number in (1, 2):
        curriculum.stage(number, SFT_STRICT=0, SFT_OUT_LORA_DIR=curriculum.root / "adapter")
    assert preconditions(curriculum.surveyed(2)) == [
        f"[WARNING] Previous stage adapter not found at {curriculum.root}/adapter_stage1, "
        "starting from base model"
    ]


def test_with_some_ancestors_there_the_warning_does_not_claim_the_base(curriculum: Any) -> None:
    for number in (1, 2, 3):
        curriculum.stage(number, SFT_STRICT=0)
    curriculum.train(1)
    (warning,) = preconditions(curriculum.surveyed(3))
    assert warning.startswith(f"[WARNING] Previous stage adapter not found at {curriculum.folder(2)}, ")
    assert "starting from base model" not in warning


def test_a_strict_stage_names_every_missing_ancestor(curriculum: Any) -> None:
    for number in (1, 2, 3):
        curriculum.stage(number)
    with pytest.raises(InputError) as caught:
        preconditions(curriculum.surveyed(3))
    assert [problem.value for problem in caught.value.problems] == [
        str(curriculum.folder(1)),
        str(curriculum.folder(2)),
    ]
    assert "--stage 1 first" in caught.value.problems[0].remedy


def test_a_stale_ancestor_stops_a_strict_stage_and_warns_a_lenient_one(curriculum: Any) -> None:
    curriculum.stage(1)
    curriculum.stage(2)
    curriculum.train(1)
    assert preconditions(curriculum.surveyed(2)) == []
    curriculum.stage(1, SFT_LR="7e-5")
    with pytest.raises(InputError, match="SFT_LR changed from 1e-4 to 7e-5") as caught:
        preconditions(curriculum.surveyed(2))
    assert "--stage 1-2" in caught.value.problems[0].remedy
    curriculum.stage(2, SFT_STRICT=0)
    (warning,) = preconditions(curriculum.surveyed(2))
    assert warning.startswith("[WARNING] stage 1 is stale (SFT_LR changed")


def test_what_the_same_command_trains_first_is_no_obstacle(curriculum: Any) -> None:
    for number in (1, 2, 3):
        curriculum.stage(number)
    third = curriculum.surveyed(3, chosen=(1, 2, 3))
    assert obstacles(third, runs_before=(1, 2)) == ([], [])
    problems, _ = obstacles(third, runs_before=(1,))
    assert [problem.value for problem in problems] == [str(curriculum.folder(2))]


def test_a_path_below_a_regular_file_cannot_be_written(curriculum: Any) -> None:
    """True for root too, who may write everywhere."""
    (curriculum.root / "file").touch()
    curriculum.stage(1, SFT_OUT_LORA_DIR=curriculum.root / "file" / "lora", SFT_STRICT=0)
    with pytest.raises(InputError) as caught:
        preconditions(curriculum.surveyed(1))
    (problem,) = caught.value.problems
    assert problem.key == "SFT_OUT_LORA_DIR"
    assert problem.expected.endswith(f"{curriculum.root}/file is not a folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_permission_cannot_be_written(curriculum: Any) -> None:
    closed = curriculum.root / "closed"
    closed.mkdir(mode=0o500)
    curriculum.stage(1, SFT_OUT_LORA_DIR=closed / "lora")
    (problem,) = unwritable_problems(curriculum.surveyed(1).settings)
    assert "cannot be written" in problem.expected


def test_a_merged_base_is_built_beside_the_stage(curriculum: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder, too, has to be one that can be written: found before hours of training, not after."""
    curriculum.stage(2)
    curriculum.folder(2).mkdir(parents=True)
    parent = curriculum.folder(2).parent
    monkeypatch.setattr(obstacles_module.os, "access", lambda folder, mode: folder != parent)
    (problem,) = unwritable_problems(curriculum.surveyed(2).settings)
    assert problem.expected.endswith(f"{parent} cannot be written")
    curriculum.stage(2, SFT_MERGE_MODE="stack")
    assert unwritable_problems(curriculum.surveyed(2).settings) == []


def test_a_folder_that_can_be_made_is_fine(curriculum: Any) -> None:
    curriculum.stage(1, SFT_OUT_LORA_DIR=curriculum.root / "a" / "b" / "lora")
    assert preconditions(curriculum.surveyed(1)) == []
    assert not (curriculum.root / "a").exists()


def test_a_stage_that_runs_elsewhere_is_not_started_twice(
    curriculum: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    curriculum.stage(1)
    stage = curriculum.surveyed(1)
    monkeypatch.setattr(stage_lock, "running_elsewhere", lambda folder: "process 4711")
    with pytest.raises(InputError, match="process 4711"):
        preconditions(stage)


def test_the_key_of_a_chain_is_its_content(curriculum: Any) -> None:
    for number in (1, 2, 3):
        curriculum.stage(number)
    first_key = curriculum.surveyed(1).chain.key
    curriculum.train(1, adapter=b"one")
    curriculum.train(2, adapter=b"two")
    chain = curriculum.surveyed(3).chain
    assert chain.adapters == [curriculum.folder(1), curriculum.folder(2)]
    assert chain.missing == ()
    keys = {first_key, curriculum.surveyed(2).chain.key, chain.key}
    curriculum.train(1, adapter=b"two")
    curriculum.train(2, adapter=b"one")
    keys.add(curriculum.surveyed(3).chain.key)
    assert len(keys) == 4
    curriculum.train(1, adapter=b"one")
    curriculum.train(2, adapter=b"two")
    assert curriculum.surveyed(3).chain.key == chain.key


def test_a_base_that_was_just_downloaded_is_held_against_the_earlier_stages(
    curriculum: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache was emptied and the Hub's `main` moved on: by name all was well, by content it is not."""
    for number in (1, 2):
        curriculum.stage(number, SFT_BASE_MODEL="owner/model")
    here = curriculum.base
    monkeypatch.setattr(base_files, "hub_snapshot", lambda name, revision: here if here.exists() else None)
    (here / "model.safetensors").write_bytes(b"as it was")
    curriculum.train(1)
    here = curriculum.root / "not yet"
    stage = curriculum.surveyed(2)
    assert preconditions(stage) == []
    assert stage.chain.key == ""

    def download(model: ModelSettings) -> None:
        nonlocal here
        here = curriculum.base
        (here / "model.safetensors").write_bytes(b"as it is now")

    monkeypatch.setattr(survey_module, "fetch_base", download)
    stage = with_base(stage, curriculum.stages, chosen=(2,), overrides=())
    assert stage.chain.key
    assert with_base(stage, curriculum.stages, chosen=(2,), overrides=()) is stage
    with pytest.raises(InputError, match="the base model changed"):
        preconditions(stage)


def test_another_base_for_one_run_is_that_of_the_earlier_stages_too(curriculum: Any) -> None:
    """A stand-in given with --set to every stage in turn makes none stale; to one alone, the others."""
    other = curriculum.root / "other"
    shutil.copytree(curriculum.base, other)
    (other / "model.safetensors").write_bytes(b"another model")
    for number in (1, 2):
        curriculum.stage(number)
    given = [f"SFT_BASE_MODEL={other}"]
    curriculum.train(1, overrides=given)
    assert not curriculum.surveyed(2, overrides=given).stale_parents
    assert "the base model changed" in curriculum.surveyed(2).stale_parents[1]
    curriculum.train(1)
    assert "the base model changed" in curriculum.surveyed(2, overrides=given).stale_parents[1]


def test_another_output_folder_for_one_run_is_where_earlier_stages_lie(curriculum: Any) -> None:
    for number in (1, 2):
        curriculum.stage(number)
    given = [f"SFT_OUT_LORA_DIR={curriculum.root}/elsewhere"]
    first, second = curriculum.survey(2, overrides=given)
    assert first.settings.stage_dir == curriculum.root / "elsewhere_stage1"
    assert second.settings.stage_dir == curriculum.root / "elsewhere_stage2"
