"""Whether SFT_MERGE_MODE makes a stage stale."""

from typing import Any


def states(curriculum: Any) -> list[str]:
    return [stage.status.state for stage in curriculum.survey()]


def test_the_merge_mode_counts_where_there_is_something_to_merge(curriculum: Any) -> None:
    for number in (1, 2, 3):
        curriculum.stage(number)
        curriculum.train(number)
    for number in (1, 2, 3):
        curriculum.stage(number, SFT_MERGE_MODE="stack")
    assert states(curriculum) == ["complete", "stale", "stale"]
    assert curriculum.surveyed(2).status.reasons == ("SFT_MERGE_MODE changed from merge to stack",)


def test_the_ancestors_of_a_stage_may_have_any_mode(curriculum: Any) -> None:
    for number, mode in ((1, "stack"), (2, "stack"), (3, "merge"), (4, "stack")):
        curriculum.stage(number, SFT_MERGE_MODE=mode)
        curriculum.train(number)
    assert states(curriculum) == ["complete"] * 4
    before = curriculum.surveyed(4).chain.key
    curriculum.stage(2, SFT_MERGE_MODE="merge")
    assert curriculum.surveyed(4).chain.key == before
    assert states(curriculum) == ["complete", "stale", "stale", "stale"]
