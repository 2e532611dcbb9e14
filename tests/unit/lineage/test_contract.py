"""A stage is held to the template and tokenizer of the stage below it."""

from typing import Any

import pytest

from lib.lineage.contract import check_contract, keep_contract
from lib.settings import InputError

OTHER = "zephyr"


@pytest.fixture
def two_stages(curriculum: Any) -> Any:
    curriculum.stage(1)
    curriculum.stage(2)
    curriculum.train(1)
    return curriculum


def contract(curriculum: Any, number: int) -> list[str]:
    stage = curriculum.surveyed(number)
    return keep_contract(stage, curriculum.chat(stage))


def test_the_first_stage_is_held_to_nothing(curriculum: Any) -> None:
    curriculum.stage(1, SFT_CHAT_TEMPLATE=OTHER)
    assert contract(curriculum, 1) == []


def test_the_same_template_passes(two_stages: Any) -> None:
    assert contract(two_stages, 2) == []


@pytest.mark.parametrize("strict", [0, 1])
def test_another_template_is_refused_with_what_differs(strict: int, two_stages: Any) -> None:
    two_stages.stage(2, SFT_CHAT_TEMPLATE=OTHER, SFT_STRICT=strict)
    with pytest.raises(InputError) as caught:
        contract(two_stages, 2)
    first = caught.value.problems[0]
    assert first.key == "SFT_CHAT_TEMPLATE"
    assert first.where.endswith("stage2.env")
    assert first.value.startswith("what is written for a question: '<|user|>")
    assert "stage 1" in first.expected
    assert "'<|im_start|>user" in first.expected
    assert f"SFT_CHAT_TEMPLATE={two_stages.folder(1)}/chat_template.jinja" in first.remedy
    assert "SFT_ALLOW_TEMPLATE_CHANGE=1" in first.remedy


def test_the_remedy_works(two_stages: Any) -> None:
    template = two_stages.base / "chat_template.jinja"
    template.write_text(template.read_text().replace("m.content +", "m.content + ' ' +"))
    with pytest.raises(InputError):
        contract(two_stages, 2)
    two_stages.stage(2, SFT_CHAT_TEMPLATE=two_stages.folder(1) / "chat_template.jinja")
    assert contract(two_stages, 2) == []


def test_a_change_that_is_meant_is_only_said(two_stages: Any) -> None:
    two_stages.stage(2, SFT_CHAT_TEMPLATE=OTHER, SFT_ALLOW_TEMPLATE_CHANGE=1)
    notices = contract(two_stages, 2)
    assert all(notice.startswith("[WARNING] ") for notice in notices)
    assert "SFT_ALLOW_TEMPLATE_CHANGE=1" in notices[0]


def test_after_a_change_the_nearest_stage_counts(two_stages: Any) -> None:
    two_stages.stage(2, SFT_CHAT_TEMPLATE=OTHER, SFT_ALLOW_TEMPLATE_CHANGE=1)
    two_stages.train(2)
    two_stages.stage(3, SFT_CHAT_TEMPLATE=OTHER)
    assert contract(two_stages, 3) == []
    two_stages.stage(3)
    with pytest.raises(InputError, match="stage 2 was trained with"):
        contract(two_stages, 3)


def test_what_the_same_command_trains_first_is_compared_in_its_turn(two_stages: Any) -> None:
    two_stages.stage(2, SFT_CHAT_TEMPLATE=OTHER)
    stage = two_stages.surveyed(2)
    assert check_contract(stage, two_stages.chat(stage), runs_before=(1,)) == ([], [])
    assert check_contract(stage, two_stages.chat(stage))[0]
