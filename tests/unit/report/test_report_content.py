from typing import Any

import pytest
from stage_records import evaluation, ledger, masked_row, retained, sample, samples, stage_record

from lib.report.content import ReportContent, report_content
from lib.report.samples import SHOWN_SAMPLES, is_wrong, label_choices, sample_views
from lib.report.wording import duration, enumeration, moment, number, score


def content_of(record: dict[str, Any], *ancestors: dict[str, Any]) -> ReportContent:
    return report_content(record, ancestors, samples(), [masked_row()])


def test_one_sentence_says_what_the_stage_is() -> None:
    assert content_of(stage_record()).sentence == (
        "Stage 2 of curriculum “books” trained a LoRA adapter on 1,230 examples from 基本.jsonl and "
        "a-data-set-with-a-rather-long-name for 60 steps (1 epoch); values right in held-out answers (F1): "
        "0.62 → 0.80."
    )


def test_the_sentence_does_without_scores() -> None:
    unscored = {"before": {"metrics": {}}, "after": {"metrics": {}}}
    assert content_of(stage_record(scores=unscored)).sentence.endswith("for 60 steps (1 epoch).")


def test_records_that_name_no_headline_are_judged_by_their_parse_rate() -> None:
    older = {"before": {"metrics": {}}, "after": {"metrics": {"heldout_loss": 0.1, "gen_parse_rate": 0.93}}}
    content = content_of(stage_record(scores=older))
    assert content.sentence.endswith("held-out answers that parse: 0.93.")
    assert [line.metric for line in content.scores] == ["gen_parse_rate", "heldout_loss"]


@pytest.mark.parametrize(
    ("entries", "notices", "expected"),
    [
        ([retained(1, 0.5, passed=False)], [], [("bad", "Gate failed: forgot too much of stage 1")]),
        ([retained(1, 0.79)], [], [("good", "Gate passed: still knows stage 1")]),
        ([retained(1, 0.79, minimum=None)], [], [("neutral", "No gate on forgetting")]),
    ],
)
def test_badges_say_how_the_gate_ended(entries: Any, notices: list[str], expected: Any) -> None:
    record = stage_record(scores=evaluation(0.6, 0.8, *entries), notices=notices)
    badges = [(badge.tone, badge.text) for badge in content_of(record).badges]
    assert badges == [*expected, ("good", "No warnings")]


def test_badges_count_warnings_and_errors_but_not_remarks() -> None:
    record = stage_record(1, notices=["a remark", "[WARNING] one", "[ERROR] two", "[ERROR] three"])
    badges = [(badge.tone, badge.text) for badge in content_of(record).badges]
    assert badges == [("bad", "2 errors that were passed over"), ("warning", "1 warning")]


def test_lineage_goes_from_the_base_up_to_this_stage() -> None:
    lineage = content_of(stage_record(3)).lineage
    assert [layer.name for layer in lineage] == ["org/base-model", "Stage 1", "Stage 2", "Stage 3"]
    assert [layer.identity[:2] for layer in lineage] == ["ff", "11", "22", "aa"]


def test_lineage_says_what_the_merge_kept() -> None:
    record = stage_record(3)
    proof = {"kept": 0.98, "noise": 0.05, "tensors": 32, "tensors_changed": 31, "expert_tensors": 24}
    proof |= {"expert_tensors_changed": 23, "adapter_tensors_used": 16}
    proof |= {"least_kept": {"tensor": "layers.0.q_proj", "kept": 0.51, "noise": 0.9, "changed": True}}
    proof |= {"logits": {"tokens": 614, "mean": 0.006, "largest": 2.7, "spread": 2.5, "same_first": 0.998}}
    record["base"] = {**record["base"], "key": "bb", "proof": proof}
    content = content_of(record)
    merged = content.lineage[-2]
    assert (merged.name, merged.identity) == ("Merged", "bb")
    assert merged.detail == (
        "31 tensors changed (23 of 24 expert tensors), 98 % of the update kept, noise 5 %, "
        "same first token 99.8 %"
    )
    table = content.merge_proof
    assert table["Adapter tensors merged"] == "16, each of them exactly once"
    assert table["Tensors of the base changed"] == "31 of 32 (expert tensors: 23 of 24)"
    assert table["Tensor that lost most"] == "layers.0.q_proj: 51 % survived"
    assert "the mean gap is 0.006" in table["Logits against base and adapters"]
    assert content_of(stage_record(1)).merge_proof == {}


def test_lineage_says_what_stays_beside_the_weights() -> None:
    record = stage_record(3)
    kept = {"folders": ["a", "b"], "targets": 12, "parameters": 3456, "adapter_tensors_used": 48}
    record["base"] = {**record["base"], "key": "bb", "proof": None, "stacked": kept}
    stacked = content_of(record).lineage[-2]
    assert (stacked.name, stacked.identity) == ("Stacked", "bb")
    assert stacked.detail == (
        "what 2 earlier stages added stays beside the weights, unmerged: "
        "3,456 frozen parameters in 12 targets"
    )


def test_settings_keep_their_origin() -> None:
    rows = {row.key: (row.value, row.origin) for row in content_of(stage_record()).settings}
    assert rows["SFT_LR"] == ("1e-3", "--set")
    assert rows["SFT_SEED"] == ("3407", "default")


def test_a_stage_without_history_labels_or_token_counts_still_has_a_report() -> None:
    bare = {**ledger(), "labels": [], "encoded": None}
    record = stage_record(1, data={"ledger": bare}, scores={"before": None, "after": None})
    del record["training"]["history"]
    content = content_of(record)
    assert content.history == ()
    assert content.matrix.measured == 0
    assert "1,233 examples" in content.sentence


@pytest.mark.parametrize(
    ("verdict", "wrong"),
    [
        ({"exact": False, "parses": True}, True),
        ({"exact": True}, False),
        ({"fields": {"a": {"ok": True}, "b": {"ok": False}}}, True),
        ({"fields": {"a": {"ok": True}}}, False),
        ({"parses": False}, True),
        ({"parses": True}, False),
        ({"parses": None}, None),
        ({}, None),
    ],
)
def test_what_counts_as_wrong(verdict: dict[str, Any], wrong: bool | None) -> None:
    assert is_wrong(verdict) is wrong


def test_samples_of_older_files_say_only_whether_they_parse() -> None:
    older = {"row": "a#1", "labels": {}, "reference": "x", "answer": "y", "parses": False}
    (view,) = sample_views([older])
    assert (view.wrong, view.mark, view.reasons) == (True, "✗ does not parse", ("not well-formed",))


def test_wrong_answers_come_first_and_the_page_has_a_limit() -> None:
    views = sample_views(samples(SHOWN_SAMPLES + 100))
    assert len(views) == SHOWN_SAMPLES
    assert [view.wrong for view in views] == sorted((view.wrong for view in views), reverse=True)
    assert sum(bool(view.wrong) for view in views) == (SHOWN_SAMPLES + 100) / 4


def test_reasons_name_path_and_values() -> None:
    verdict = {
        "parses": True,
        "exact": False,
        "missing_paths": ["owner.city"],
        "wrong_values": [["year", 1906, "x" * 500]],
        "fields": {"name": {"ok": False, "gold": "松", "pred": None}},
    }
    (view,) = sample_views([sample(1, wrong=True, verdict=verdict)])
    assert view.reasons[0] == "missing: owner.city"
    assert view.reasons[1].startswith('year: 1906 expected, "xxx')
    assert len(view.reasons[1]) < 200
    assert view.reasons[2] == "name: 松 expected, nothing answered"


def test_only_labels_that_tell_rows_apart_can_be_chosen() -> None:
    assert label_choices(sample_views(samples())) == {"format": ["json", "toml"]}


def test_numbers_are_rounded_for_readers() -> None:
    assert [number(value) for value in (1081, 63.49, 0.5, 9.8e-5, float("nan"))] == [
        "1,081",
        "63.5",
        "0.50",
        "9.8e-05",
        "nan",
    ]
    assert [score(value) for value in (1.0, 0.93, 0.9761)] == ["1.00", "0.93", "0.98"]
    assert [duration(seconds) for seconds in (58, 250, 11_100)] == ["58 s", "4 min 10 s", "3 h 05 min"]
    assert enumeration(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert enumeration(["a"]) == "a"
    assert moment("2026-11-22T07:39:05+00:00") == "2026-11-22 07:39 UTC"
    assert moment("unknown") == "unknown"
