"""Which stages can be exported, where to, and what the cards say."""

import os
from pathlib import Path
from typing import Any

import pytest

from lib.exporting.export import Exported, stages_to_export
from lib.exporting.export_card import adapter_card, merged_card
from lib.settings import InputError


@pytest.fixture
def trained(curriculum: Any) -> Any:
    for number in (1, 2):
        curriculum.stage(number)
    for number in (1, 2):
        curriculum.train(number, adapter=f"adapter {number}".encode())
    return curriculum


def export(curriculum: Any, last: int = 2, name: str = "model", *, replace: bool = False) -> Exported:
    return stages_to_export(curriculum.stages, last, curriculum.root / name, replace=replace)


def problems(curriculum: Any, **keywords: Any) -> list[Any]:
    with pytest.raises(InputError) as caught:
        export(curriculum, **keywords)
    return list(caught.value.problems)


def test_the_last_stage_is_a_part_of_it(trained: Any) -> None:
    exported = export(trained)
    assert exported.chain.adapters == [trained.folder(1), trained.folder(2)]
    assert [record.stage for record in exported.records] == [1, 2]
    assert exported.headline == f"stages 1 to 2 on {trained.base}"
    trained.stage(3)
    assert exported.chain.key == trained.surveyed(3).chain.key, "the base that the next stage would train on"
    assert export(trained, 1).headline == f"stage 1 on {trained.base}"


def test_later_stages_do_not_matter(trained: Any) -> None:
    trained.stage(2, SFT_LR="9e-5")
    trained.stage(3)
    assert export(trained, 1).chain.adapters == [trained.folder(1)]


def test_a_lenient_curriculum_is_exported_as_strictly(trained: Any) -> None:
    for number in (1, 2):
        trained.stage(number, SFT_STRICT=0)
    trained.stage(1, SFT_STRICT=0, SFT_LR="9e-5")
    first, second = problems(trained)
    assert (first.key, first.value) == ("stage 1", "stale: SFT_LR changed from 1e-4 to 9e-5")
    assert (second.key, second.value) == ("stage 2", "stale: stage 1 is stale")
    assert "--stage 1-2" in first.remedy


def test_everything_wrong_is_said_at_once(trained: Any) -> None:
    trained.stage(3)
    (trained.root / "model").mkdir()
    (trained.root / "model" / "notes.txt").touch()
    stage, destination = problems(trained, last=3)
    assert (stage.key, stage.value) == ("stage 3", "missing")
    assert destination.key == "--to"
    assert "--force" in destination.remedy


def test_force_replaces_models_and_nothing_else(trained: Any) -> None:
    folder: Path = trained.root / "model"
    folder.mkdir()
    assert export(trained)
    (folder / "notes.txt").touch()
    (problem,) = problems(trained, replace=True)
    assert "something else" in problem.expected
    for name in ("config.json", "adapter_config.json"):
        (folder / name).touch()
        assert export(trained, replace=True)
        (folder / name).unlink()


def test_what_a_link_leads_to_is_not_replaced(trained: Any) -> None:
    elsewhere: Path = trained.root / "elsewhere"
    elsewhere.mkdir()
    (trained.root / "model").symlink_to(elsewhere)
    assert export(trained)  # an empty folder that the user names by a link
    (elsewhere / "config.json").touch()
    (problem,) = problems(trained, replace=True)
    assert "not a link" in problem.expected


@pytest.mark.parametrize("name", ["base", "out", "out/lora_stage1", "stages", ".", "../"])
def test_the_curriculum_is_never_replaced(name: str, trained: Any) -> None:
    (trained.root / "config.json").touch()
    (problem,) = problems(trained, name=name, replace=True)
    assert "a folder of its own" in problem.expected


def test_the_working_folder_is_never_replaced(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here = trained.root / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (problem,) = problems(trained, name="here", replace=True)
    assert str(here) in problem.expected
    assert os.getcwd() == str(here)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl/model"])
def test_a_file_is_no_folder(name: str, trained: Any) -> None:
    (problem,) = problems(trained, name=name)
    assert "rows.jsonl is a file" in problem.expected


def test_cards_name_everything_that_went_in(trained: Any) -> None:
    exported = export(trained)
    for card in (merged_card(exported, "mine"), adapter_card(exported, "mine", 24)):
        assert card.startswith(f"---\nbase_model: {trained.base}\n")
        assert card.count(f"| {trained.data} | 70 |") == 2
        for record in exported.records:
            assert record.adapter_sha256 in card
        assert exported.chain.base.content in card
        assert "| gen_parse_rate | 0.5000 |" in card
        assert "Answers end with `<|im_end|>`." in card
    assert "--max-lora-rank 32" in adapter_card(exported, "mine", 24)
