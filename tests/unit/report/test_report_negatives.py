from typing import Any

import pytest
from stage_records import ledger, masked_row, samples, stage_record

from lib.report.charts import figures
from lib.report.content import report_content
from lib.report.negatives import negative_stages, suggested_negatives
from lib.report.next_stage import next_stage
from lib.report.next_stage_text import next_stage_text, reasons
from lib.report.page import page


def record(
    stage: int, recall: float, alarms: float, *, trained: int = 50, intervals: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A stage trained on 100 rows that can be told apart, so many of them negatives."""
    line = {
        "scope": "*",
        "requested": 0.5,
        "realised": 0.5,
        "rows": 400,
        "negatives": 100,
        "drawn": 100,
        "drawn_negatives": 50,
        "trained": 100,
        "trained_negatives": trained,
    }
    metrics = {
        "gen_offender_presence_precision": 0.9,
        "gen_offender_presence_recall": recall,
        "gen_fp_rate_on_negative": alarms,
    }
    scored = {"metrics": metrics, "intervals": intervals or {}}
    evaluation = {"before": {"metrics": {}, "intervals": {}}, "after": scored, "retention": []}
    made = stage_record(stage, scores=evaluation)
    return made | {"data": {"sources": [], "ledger": {**ledger(), "negatives": [line]}}}


def arithmetic(record: dict[str, Any]) -> str:
    advice = suggested_negatives(record)
    assert advice is not None
    return advice.arithmetic


def test_shares_and_scores_of_every_stage_stand_side_by_side() -> None:
    records = [record(1, 0.9, 0.3, trained=20), record(2, 0.8, 0.1)]
    found = [
        (line.stage, line.asked, line.realised, line.recall, line.false_alarms)
        for line in negative_stages(records)
    ]
    assert found == [(1, 0.5, 0.2, 0.9, 0.3), (2, 0.5, 0.5, 0.8, 0.1)]
    content = report_content(records[1], records[:1], samples(), [masked_row()])
    assert "negatives" in figures(content)
    text = page(content)
    assert "For the next stage." in text
    assert "False alarms" in text


def test_records_without_negatives_show_nothing() -> None:
    content = report_content(stage_record(2), [stage_record(1)], samples(), [masked_row()])
    assert (content.negatives, content.next_stage.negatives) == ((), None)
    assert "False alarms" not in page(content)
    assert "negatives" not in figures(content)


def test_more_negatives_where_there_are_more_false_alarms() -> None:
    said = arithmetic(record(1, 0.9, 0.15))
    assert "15.0% false alarms on negatives and 10.0% missed positives with 50.0% negatives: more" in said
    assert "times 0.150 / 0.100 = 1.50, make 1.500, a share of 0.60: SFT_NEGATIVE_SHARE=0.60" in said


def test_fewer_where_more_is_missed_and_never_more_than_twofold() -> None:
    said = arithmetic(record(1, 0.5, 0.02))
    assert "fewer negatives" in said
    assert "held to 0.5, make 0.500, a share of 0.33: SFT_NEGATIVE_SHARE=0.33" in said


def test_no_change_where_the_intervals_overlap() -> None:
    wide = {"gen_offender_presence_recall": [0.7, 0.98], "gen_fp_rate_on_negative": [0.05, 0.3]}
    assert "no reason to change" in arithmetic(record(1, 0.9, 0.15, intervals=wide))


@pytest.mark.parametrize(("trained", "missing"), [(0, "negatives"), (100, "positives")])
def test_one_kind_alone_has_no_odds(trained: int, missing: str) -> None:
    assert f"mix {missing} in" in arithmetic(record(1, 0.5, 0.02, trained=trained))


def test_the_share_goes_into_the_next_stage_unless_it_is_declared_by_data_set() -> None:
    asked = record(1, 0.9, 0.15)
    (change,) = next_stage(asked, []).changes
    assert (change.key, change.value, change.was) == ("SFT_NEGATIVE_SHARE", "0.60", "")
    assert "SFT_NEGATIVE_SHARE=0.60  # was not set" in next_stage_text(next_stage(asked, []))
    asked["settings"]["SFT_NEGATIVE_SHARE"] = '{"data/news.jsonl": 0.5}'
    by_data_set = next_stage(asked, [])
    assert by_data_set.changes == ()
    assert any("SFT_NEGATIVE_SHARE=0.60" in said for said in reasons(by_data_set))
