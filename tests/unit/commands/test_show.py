import json
from typing import Any

import pytest

from lib.commands.arguments import parse
from lib.commands.show import show_plans, show_status
from lib.settings import InputError
from lib.training.sizing.world import World

WORLD = World(1, 0)


def options_of(curriculum: Any, *arguments: str) -> Any:
    return parse([*arguments, "--stages-dir", str(curriculum.stages)], "")


def status(curriculum: Any, *arguments: str) -> int:
    return show_status(options_of(curriculum, "--status", *arguments))


def plans(curriculum: Any, *chosen: int, extra: tuple[str, ...] = ()) -> int:
    return show_plans(options_of(curriculum, "--stage", "all", "--plan", *extra), chosen, WORLD)


def test_status_has_one_line_a_stage(curriculum: Any, capsys: pytest.CaptureFixture[str]) -> None:
    curriculum.stage(1)
    curriculum.stage(2)
    curriculum.train(1)
    capsys.readouterr()
    assert status(curriculum) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("stage 1  complete ")
    assert second == "stage 2  missing"


def test_status_for_machines(curriculum: Any, capsys: pytest.CaptureFixture[str]) -> None:
    curriculum.stage(1)
    curriculum.train(1)
    curriculum.stage(1, SFT_LR="9e-5")
    capsys.readouterr()
    status(curriculum, "--json")
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["stage"], shown["state"]) == (1, "stale")
    assert shown["reasons"] == ["SFT_LR changed from 1e-4 to 9e-5"]
    assert shown["scores"] == {"gen_leaf_f1": 0.5, "gen_parse_rate": 0.5}


def test_plans_of_a_whole_curriculum(curriculum: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2, 3):
        curriculum.stage(number)
    curriculum.train(1)
    capsys.readouterr()
    assert plans(curriculum, 1, 2, 3, extra=("--json",)) == 0
    first, second, third = json.loads(capsys.readouterr().out)
    assert [plan["will_run"] for plan in (first, second, third)] == [False, True, True]
    assert [parent["state"] for parent in third["parents"]] == ["complete", "trained first by this command"]
    assert first["steps"] == 3
    assert plans(curriculum, 1, 2, 3) == 0
    text = capsys.readouterr().out
    assert text.count("\nStage ") == 3
    assert "Stage 1" in text
    assert "up to date, will be left alone" in " ".join(text.split())


def test_what_keeps_a_stage_from_running_is_said_after_what_can_be_shown(
    curriculum: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2, 3):
        curriculum.stage(number)
    broken = curriculum.root / "broken.jsonl"
    broken.write_text('{"body": "fits no format"}\n')
    curriculum.stage(2, SFT_DATASET_ID=broken)
    with pytest.raises(InputError) as caught:
        plans(curriculum, 2, 3)
    places = [problem.where for problem in caught.value.problems]
    assert places[0] == f"{broken}#0"
    assert str(curriculum.stages / "stage3.env") in places
    shown = capsys.readouterr().out
    assert "Stage 3" in shown
    assert "Stage 2" not in shown


def test_overrides_reach_the_plan(curriculum: Any, capsys: pytest.CaptureFixture[str]) -> None:
    curriculum.stage(1)
    plans(curriculum, 1, extra=("--json", "--set", "SFT_MAX_STEPS=123"))
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["steps"] == 123
    assert shown["origins"]["SFT_MAX_STEPS"] == "--set"


def test_masks_of_rows(curriculum: Any, capsys: pytest.CaptureFixture[str]) -> None:
    curriculum.stage(1)
    plans(curriculum, 1, extra=("--show-mask", "2"))
    shown = capsys.readouterr().out
    assert shown.count("rows.jsonl#") == 2
    assert shown.count("⟦a│n│s│w│e│r│") == 2


def test_masks_need_a_tokenizer(curriculum: Any) -> None:
    curriculum.stage(1)
    (curriculum.base / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="--show-mask"):
        plans(curriculum, 1, extra=("--show-mask", "1"))


def test_an_unknown_stage_is_the_users_to_mend(curriculum: Any) -> None:
    curriculum.stage(1)
    with pytest.raises(InputError, match=r"stage7\.env"):
        plans(curriculum, 7)
