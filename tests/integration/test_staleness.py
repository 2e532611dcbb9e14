"""After a change: what is stale and why, what is refused, and what training again makes of it."""

import json
from pathlib import Path

import pytest
from tiny_curriculum import Curriculum

CHANGED = "SFT_LR changed from 0.005 to 0.004"


@pytest.fixture
def changed(trained: Curriculum, tmp_path: Path) -> Curriculum:
    """A trained curriculum whose first stage file has another learning rate since."""
    curriculum = trained.copy_to(tmp_path / "changed")
    curriculum.set(1, SFT_LR=0.004)
    return curriculum


def test_a_copied_curriculum_is_still_up_to_date(trained: Curriculum, tmp_path: Path) -> None:
    lines = trained.copy_to(tmp_path / "copied").status()
    assert [line.split()[2] for line in lines] == ["complete"] * 3


def test_status_and_plan_say_what_is_stale_and_why(changed: Curriculum) -> None:
    first, second, third = changed.status()
    assert first.startswith(f"stage 1  stale        {CHANGED}")
    assert second.startswith("stage 2  stale        stage 1 is stale")
    assert third.startswith("stage 3  stale        stage 1 is stale; stage 2 is stale")

    answer = changed.command("--stage", "2", "--plan", "--json")
    assert answer.returncode == 2
    (plan,) = json.loads(answer.stdout)
    assert plan["state"] == "stale"
    assert [(parent["state"], parent["reasons"]) for parent in plan["parents"]] == [("stale", [CHANGED])]

    plans = changed.plans("all")
    assert [plan["will_run"] for plan in plans] == [True, True, True]
    assert [parent["state"] for parent in plans[2]["parents"]] == ["trained first by this command"] * 2
    said = changed.train("all", "--plan")
    assert f"stale: {CHANGED}" in said


def test_a_strict_stage_is_not_trained_on_a_stale_one(changed: Curriculum) -> None:
    before = changed.left_behind()
    refusal = changed.command("--stage", "2")
    assert refusal.returncode == 2
    for part in ("stage1.env: stage 1", CHANGED, "python train.py --stage 1-2", "SFT_STRICT=0"):
        assert part in refusal.stderr
    assert "Traceback" not in refusal.stderr
    assert changed.left_behind() == before


def test_a_lenient_stage_warns_that_its_parent_is_stale(changed: Curriculum) -> None:
    said = changed.train(2, "--plan", "--set", "SFT_STRICT=0")
    assert "[WARNING] stage 1 is stale" in said


def test_training_the_first_stage_again_makes_the_later_ones_stale(changed: Curriculum) -> None:
    changed.train(1)
    first, second, third = changed.status()
    assert first.startswith("stage 1  complete")
    assert second.startswith("stage 2  stale        stage 1 was retrained")
    assert third.startswith("stage 3  stale        stage 1 was retrained; stage 2 is stale")


def test_changed_data_makes_a_stage_stale(trained: Curriculum, tmp_path: Path) -> None:
    curriculum = trained.copy_to(tmp_path / "other_data")
    with (curriculum.folder / "hard.jsonl").open("a") as file:
        file.write((curriculum.folder / "toml.jsonl").read_text().splitlines()[0] + "\n")
    first, second, third = curriculum.status()
    assert "complete" in first
    assert "complete" in second
    assert third.startswith("stage 3  stale        data set hard.jsonl changed")


def test_what_is_only_shown_or_kept_makes_nothing_stale(trained: Curriculum, tmp_path: Path) -> None:
    curriculum = trained.copy_to(tmp_path / "shown")
    curriculum.set(1, SFT_LOGGING_STEPS=2, SFT_SAVE_TOTAL_LIMIT=1, SFT_GEN_EVAL_SAMPLES=2)
    assert [line.split()[2] for line in curriculum.status()] == ["complete"] * 3


def test_a_changed_adapter_file_is_noticed(trained: Curriculum, tmp_path: Path) -> None:
    curriculum = trained.copy_to(tmp_path / "exchanged")
    weights = curriculum.stage_dir(1) / "adapter_model.safetensors"
    weights.write_bytes((curriculum.stage_dir(2) / "adapter_model.safetensors").read_bytes())
    first, second, _ = curriculum.status()
    assert "its adapter file is not the one that was recorded" in first
    assert "stage 1 was retrained" in second
