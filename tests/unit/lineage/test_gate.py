"""The retention gate, judged from records."""

from dataclasses import replace
from typing import Any

import pytest

from lib.evaluation.stage_evaluation import Retained
from lib.lineage.completion import keep_evaluation
from lib.lineage.gate import earlier_stages, failed_gate, gate_failures
from lib.lineage.record import write_record
from lib.planning.obstacles import obstacles


def trained_twice(curriculum: Any, earlier: float | None, now: float, **keys: Any) -> Any:
    """Stage 1, then stage 2 with what it kept of stage 1."""
    curriculum.stage(1)
    curriculum.stage(2, **keys)
    curriculum.train(1)
    record = curriculum.train(2)
    kept = Retained(1, "structured", "gen_leaf_f1", earlier, curriculum.scored(1, now).after)
    scored = curriculum.scored(2, retained=(kept,))
    record = replace(record, evaluation=scored.to_json())
    keep_evaluation(curriculum.folder(2), record, scored)
    write_record(curriculum.folder(2), record)
    return record


@pytest.mark.parametrize(
    ("earlier", "now", "minimum", "fails"),
    [
        (0.8, 0.7, 0.9, True),
        (0.8, 0.72, 0.9, False),
        (0.8, 0.9, 1.0, False),
        (0.8, 0.0, 0.0, False),
        (0.0, 0.0, 0.9, False),
        (None, 0.5, 0.9, False),
    ],
)
def test_less_than_the_minimum_share_fails(
    earlier: float | None, now: float, minimum: float, fails: bool, curriculum: Any
) -> None:
    record = trained_twice(curriculum, earlier, now)
    assert bool(gate_failures(record, minimum)) is fails


def test_the_verdict_says_what_was_lost_and_what_to_do(curriculum: Any) -> None:
    trained_twice(curriculum, 0.8, 0.6, SFT_RETENTION_MIN=0.9)
    stage = curriculum.surveyed(2)
    assert stage.status.state == "complete"
    assert "keeps 75% of stage 1" in stage.status.line()
    assert "GATE FAILED: stage 1's gen_leaf_f1 fell from 0.800 to 0.600: 75% is left" in stage.status.line()
    first, why, remedy = failed_gate(stage.settings)
    assert "FAILED its retention gate" in first
    assert str(curriculum.folder(2)) in first
    assert "asks for 90%" in why
    assert "SFT_RETENTION_MIN" in remedy
    curriculum.stage(2, SFT_RETENTION_MIN=0.7)
    lowered = curriculum.surveyed(2)
    assert (lowered.status.state, lowered.status.gate, failed_gate(lowered.settings)) == ("complete", (), ())


def test_nothing_is_built_on_a_stage_that_failed(curriculum: Any) -> None:
    trained_twice(curriculum, 0.8, 0.6, SFT_RETENTION_MIN=0.9)
    curriculum.stage(3)
    problems, _ = obstacles(curriculum.surveyed(3))
    assert [problem.key for problem in problems] == ["SFT_RETENTION_MIN"]
    assert problems[0].where.endswith("stage2.env")
    curriculum.stage(3, SFT_STRICT=0)
    problems, notices = obstacles(curriculum.surveyed(3))
    assert problems == []
    assert any(notice.startswith("[WARNING] stage 2 failed its retention gate") for notice in notices)


def test_earlier_stages_with_the_score_that_they_reached(curriculum: Any) -> None:
    for number in (1, 2, 3):
        curriculum.stage(number)
    for number in (1, 2):
        curriculum.train(number)
    found = earlier_stages(curriculum.surveyed(3).chain)
    assert [(stage.rows.stage, stage.score) for stage in found] == [(1, 0.5), (2, 0.5)]
    (curriculum.folder(1) / "evaluation_set.json").unlink()
    assert [stage.rows.stage for stage in earlier_stages(curriculum.surveyed(3).chain)] == [2]
