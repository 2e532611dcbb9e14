import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from scored_labels import label_line, scored_record
from stage_records import retained, stage_record

from lib.report.label_scores import LARGEST_MULTIPLIER, label_scores, multiplier
from lib.report.next_stage import NextStage, next_stage
from lib.report.next_stage_text import next_stage_text, reasons, score_lines
from lib.settings import StageSettings, load_stage

ALL = (0.7, (0.65, 0.75))
BEHIND, UNSURE, AHEAD = (0.5, (0.42, 0.58)), (0.66, (0.5, 0.8)), (0.9, (0.85, 0.95))
FORMATS = [label_line("format", name, drawn) for name, drawn in (("xml", 200), ("json", 300), ("csv", 300))]


def record_of(**changes: Any) -> dict[str, Any]:
    return scored_record({"xml": BEHIND, "json": UNSURE, "csv": AHEAD}, ALL, FORMATS, **changes)


def changed(proposal: NextStage) -> dict[str, str]:
    return {change.key: change.value for change in proposal.changes}


def loaded(proposal: NextStage, folder: Path) -> StageSettings:
    (folder / f"stage{proposal.stage}.env").write_text(next_stage_text(proposal), encoding="utf-8")
    return load_stage(folder, proposal.stage, environ={})


def test_a_label_that_is_behind_is_multiplied_and_the_others_are_left_alone() -> None:
    proposal = next_stage(record_of(), [])
    assert changed(proposal) == {
        "SFT_USE_UPSAMPLING": "1",
        "SFT_UPSAMPLE_RULES": '{"xml": 1.7}',
        "SFT_DATASET_MIX_TOTAL_SIZE": "681",
    }
    assert proposal.labels is not None
    found = [(label.value, label.verdict, label.proposed) for label in proposal.labels.labels]
    assert found == [("xml", "behind", 1.7), ("json", "unsure", 1.0), ("csv", "ahead", 1.0)]
    assert "xml: (1 - 0.500) / (1 - 0.700) = 1.67." in reasons(proposal)[1]
    assert score_lines(proposal)[2:4] == [
        "  xml       0.50 [0.42, 0.58]  behind  1 -> 1.7",
        "  json      0.66 [0.50, 0.80]  unsure  1",
    ]


def test_it_is_said_where_new_rows_are_to_be_had() -> None:
    record = record_of()
    first, second = record["data"]["ledger"]["sources"]
    first["unseen"], second["unseen"] = 300, 0
    (remark,) = next_stage(record, []).remarks
    assert remark == (
        "Rules repeat the rows that are drawn. Never drawn were 300 of 380 in 基本.jsonl: a larger weight "
        "there brings new ones."
    )
    first["unseen"] = 0
    assert next_stage(record, []).remarks == ()


def test_rules_that_were_there_stay_and_are_multiplied(tmp_path: Path) -> None:
    rules = {"SFT_USE_UPSAMPLING": "1", "SFT_UPSAMPLE_RULES": '{"csv": 2.0, "xml": 1.5}'}
    proposal = next_stage(record_of(**rules), [])
    assert json.loads(changed(proposal)["SFT_UPSAMPLE_RULES"]) == {"csv": 2.0, "xml": 2.5}
    assert loaded(proposal, tmp_path).data.upsample_rules == {"csv": 2.0, "xml": 2.5}
    assert "SFT_USE_UPSAMPLING" not in changed(proposal)
    switched_off = next_stage(record_of(**rules | {"SFT_USE_UPSAMPLING": "0"}), [])
    assert json.loads(changed(switched_off)["SFT_UPSAMPLE_RULES"]) == {"xml": 1.7}


def test_nothing_changes_where_intervals_overlap_and_it_is_said_what_would_tell() -> None:
    record = scored_record({"xml": (0.6, (0.48, 0.72)), "json": AHEAD}, ALL, FORMATS[:2])
    proposal = next_stage(record, [])
    assert proposal.changes == ()
    # (0.12 + 0.05) / 0.1 = 1.7 times too wide: 500 rows times 1.7² = 1,445.
    assert "about 1,450 rows would show it" in proposal.remarks[0]
    assert "nothing changes" in reasons(proposal)[-1]


def test_the_field_counts_where_most_is_to_be_gained() -> None:
    scores = {"json": UNSURE, "xml": BEHIND, "type/a_to_xml": (0.1, (0.0, 0.3)), "type/b_to_xml": UNSURE}
    types = [label_line("type", "a_to_xml", 20), label_line("type", "b_to_xml", 500)]
    few = label_scores(scored_record(scores, ALL, [*FORMATS, *types]))
    assert few
    assert (few.field, few.rules) == ("format", {"xml": 1.7})
    types[0]["drawn"] = 200
    many = label_scores(scored_record(scores, ALL, [*FORMATS, *types]))
    assert many
    assert (many.field, many.rules) == ("type", {"a_to_xml": 3.0})


def test_labels_are_found_by_the_names_that_metrics_have_for_them() -> None:
    """A metric's name has no `=`, and a format may be spelt in another way."""
    lines = [label_line("task", "変換=難", 100), label_line("task", "他", 100)]
    scores = {"task/変換_難": BEHIND, "task/他": AHEAD}
    assert (
        changed(next_stage(scored_record(scores, ALL, lines), []))["SFT_UPSAMPLE_RULES"] == '{"変換=難": 1.7}'
    )
    lines = [label_line("format", "XML", 100), label_line("format", "yml", 100)]
    scores = {"xml": BEHIND, "yaml": BEHIND}
    rules = changed(next_stage(scored_record(scores, ALL, lines), []))["SFT_UPSAMPLE_RULES"]
    assert json.loads(rules) == {"XML": 1.7, "yml": 1.7}


def test_a_label_without_rows_gets_no_rule_but_is_told_where_there_are_some() -> None:
    before = record_of(stage=1)
    proposal = next_stage(scored_record({"xml": BEHIND, "json": AHEAD}, ALL, FORMATS[1:]), [before])
    assert proposal.changes == ()
    assert proposal.remarks[0].startswith(
        "xml is behind and no row of the mix carries it, so no rule helps; stage 1"
    )


def test_what_was_forgotten_is_replayed_in_a_stage_of_the_same_length() -> None:
    before = record_of(stage=1)
    entry = retained(1, 0.35) | {"earlier": 0.7, "interval": [0.3, 0.4]}
    record = record_of(retention=(entry,), draws=1000, size=900, replayed=100, SFT_REPLAY="0.1")
    found = changed(next_stage(record, [before]))
    assert found["SFT_REPLAY"] == "0.3"
    # 900 of its own draws; xml's 200 hold 180 of them, times 0.7 more: 900 × 700 / 1026.
    assert found["SFT_DATASET_MIX_TOTAL_SIZE"] == "614"


def test_a_stage_whose_length_is_decided_otherwise_keeps_its_size() -> None:
    assert "SFT_DATASET_MIX_TOTAL_SIZE" not in changed(next_stage(record_of(SFT_MAX_STEPS="16"), []))
    assert "SFT_DATASET_MIX_TOTAL_SIZE" not in changed(
        next_stage(record_of(SFT_MIX_WEIGHTS="multiplier"), [])
    )


def test_a_declared_share_of_negatives_holds_the_rules_back() -> None:
    proposal = next_stage(record_of(SFT_NEGATIVE_SHARE="0.5"), [])
    assert proposal.changes == ()
    assert '{"xml": 1.7}' in proposal.remarks[0]
    assert "1 -> 1.7" not in next_stage_text(proposal)


def test_records_without_scores_labels_or_origins_have_a_proposal_too() -> None:
    unscored = stage_record(1, scores={"before": None, "after": None})
    assert "No answers were scored" in next_stage(unscored, []).remarks[0]
    unlabelled = scored_record({}, ALL, [])
    assert "No label tells" in next_stage(unlabelled, []).remarks[0]
    assert score_lines(next_stage(unlabelled, []))[1] == "  all rows  0.70 [0.65, 0.75]"


def test_the_file_loads_and_says_the_same(tmp_path: Path) -> None:
    proposal = next_stage(record_of(MLFLOW_EXPERIMENT_NAME="books-stage2"), [stage_record(1)])
    settings = loaded(proposal, tmp_path)
    assert (settings.stage, settings.strict, settings.notices) == (3, True, ())
    assert settings.data.upsample_rules == {"xml": 1.7}
    assert (settings.data.use_upsampling, settings.data.mix_total_size) == (True, 681)
    assert [(entry.id, entry.weight) for entry in settings.data.mix] == [
        ("data/基本.jsonl", 2.0),
        ("hub/x", 1.0),
    ]
    assert settings.tracking.experiment == "books-stage3"
    assert settings.values["SFT_LR"] == "1e-3"  # from --set, then: it is what the scores come from
    text = next_stage_text(proposal)
    assert all(len(line) <= 110 for line in text.splitlines() if line.startswith("#"))
    assert "SFT_USE_UPSAMPLING=1  # was not set" in text
    assert "SFT_LR=1e-3  # from --set" in text


@given(st.text(min_size=1, max_size=12), st.text(min_size=1, max_size=12))
def test_any_label_survives_the_file(first: str, second: str) -> None:
    from tempfile import TemporaryDirectory

    from lib.data.reading.labels import labels_of
    from lib.evaluation.tally import nameable

    labels = {label.value for text in (first, second) for label in labels_of({"task": text})}
    if len({nameable(value) for value in labels}) < 2:
        return
    lines = [label_line("task", value, 100) for value in sorted(labels)]
    scores = {f"task/{nameable(value)}": BEHIND for value in labels}
    proposal = next_stage(scored_record(scores, ALL, lines), [])
    try:
        "".join(labels).encode()
    except UnicodeEncodeError:
        return
    with TemporaryDirectory() as folder:
        assert loaded(proposal, Path(folder)).data.upsample_rules == dict.fromkeys(labels, 1.7)


@given(st.floats(0, 1), st.floats(0, 0.99), st.floats(0.1, 10))
def test_a_multiplier_is_never_lowered_and_only_a_present_one_is_above_the_largest(
    label: float, everything: float, present: float
) -> None:
    found = multiplier(label, everything, present)
    assert present <= found <= max(present, LARGEST_MULTIPLIER)


def test_a_perfect_stage_has_no_label_behind() -> None:
    perfect = (1.0, (1.0, 1.0))
    assert (
        next_stage(scored_record({"xml": perfect, "json": perfect}, perfect, FORMATS[:2]), []).changes == ()
    )


def test_a_label_behind_by_less_than_a_rounding_keeps_its_multiplier() -> None:
    weak, everything = (0.990, (0.9895, 0.9901)), (0.9902, (0.99015, 0.9905))
    perfect = (1.0, (1.0, 1.0))
    assert (
        next_stage(scored_record({"xml": weak, "json": perfect}, everything, FORMATS[:2]), []).changes == ()
    )
