"""SFT_REPLAY: rows of earlier stages, by their records."""

import json
from typing import Any

import pytest

from lib.data.prepare import plan_rows
from lib.lineage.record import read_record
from lib.lineage.replayed import replayed_stages
from lib.planning.obstacles import preconditions
from lib.settings import InputError


def two_stages(curriculum: Any, **keys: Any) -> Any:
    """A trained stage 1 on 40 rows in two tasks, of which one is drawn twice; stage 2 on other rows."""
    rows = [
        {"prompt": f"question {i}", "completion": f"answer {i}", "task": "json" if i % 4 else "csv"}
        for i in range(40)
    ]
    curriculum.data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = curriculum.root / "own.jsonl"
    own.write_text("".join(json.dumps({"prompt": "q", "completion": f"own {i}"}) + "\n" for i in range(60)))
    curriculum.stage(1, SFT_USE_UPSAMPLING=1, SFT_UPSAMPLE_RULES='{"csv": 2.0}')
    curriculum.train(1)
    curriculum.stage(2, **{"SFT_DATASET_ID": own, "SFT_REPLAY": 0.25, **keys})
    return curriculum.surveyed(2)


def test_a_part_of_the_stage_is_drawn_from_the_record_of_the_earlier_one(curriculum: Any) -> None:
    prepared = curriculum.prepared(two_stages(curriculum))
    ledger = prepared.ledger
    own, replayed = ledger.sources
    assert (own.upsampled, replayed.upsampled, ledger.upsampled) == (57, 19, 76)
    assert (replayed.id, replayed.replay_of) == (f"stage 1: {curriculum.data}", 1)
    # Of the 40 rows 2 are held out; csv rows were drawn twice, and keep that part.
    stage1 = {line["value"]: line for line in read_record(curriculum.folder(1)).data["ledger"]["labels"]}
    mine = {line.value: line for line in ledger.labels}
    for task in ("csv", "json"):
        assert mine[task].drawn == pytest.approx(19 * stage1[task]["share"], abs=1)
    assert not {row.key for row in curriculum.prepared(curriculum.surveyed(1)).mixture.validation} & {
        row.key for row in prepared.mixture.train
    }
    assert curriculum.prepared(curriculum.surveyed(2)).mixture == prepared.mixture


def test_rows_of_any_evaluation_set_are_not_replayed(curriculum: Any) -> None:
    heldout = curriculum.root / "heldout.jsonl"
    lines = curriculum.data.read_text().splitlines()
    asked = [json.dumps({"prompt": f"question {i}", "completion": f"answer {i}"}) for i in range(1, 36)]
    heldout.write_text("\n".join(asked) + "\n")
    prepared = curriculum.prepared(two_stages(curriculum, SFT_GEN_EVAL_DATASET_ID=heldout))
    contents = {row.messages[-1].content for row in prepared.mixture.train if "stage 1" in row.source}
    assert len(lines) == 40
    assert contents
    assert contents <= {"answer 0", "answer 36", "answer 37", "answer 38", "answer 39"}


def test_data_that_changed_since_is_named_and_refused(curriculum: Any) -> None:
    stage = two_stages(curriculum)
    curriculum.write_rows(41)
    with pytest.raises(InputError, match=r"stage 1: .*rows\.jsonl") as caught:
        curriculum.prepared(stage)
    assert caught.value.problems[0].key == "SFT_REPLAY"
    lenient = two_stages(curriculum, SFT_STRICT=0)
    curriculum.write_rows(41)
    notices = curriculum.prepared(lenient).notices
    assert any(
        "changed since that stage was trained; it is replayed as it is" in notice for notice in notices
    )


def test_a_replaying_stage_is_stale_when_that_data_changes(curriculum: Any) -> None:
    two_stages(curriculum)
    curriculum.train(2)
    assert curriculum.state(2) == "complete"
    curriculum.write_rows(41)
    reasons = curriculum.surveyed(2).status.reasons
    assert f"data set {curriculum.data} of stage 1 changed" in reasons
    with pytest.raises(InputError, match="stage 1"):
        preconditions(curriculum.surveyed(2))


def test_what_was_replayed_is_not_replayed_through_another_stage(curriculum: Any) -> None:
    two_stages(curriculum)
    curriculum.train(2)
    third = curriculum.root / "third.jsonl"
    third.write_text("".join(json.dumps({"prompt": "q", "completion": f"3 {i}"}) + "\n" for i in range(30)))
    curriculum.stage(3, SFT_DATASET_ID=third, SFT_REPLAY=0.5)
    ledger = curriculum.prepared(curriculum.surveyed(3)).ledger
    assert [line.replay_of for line in ledger.sources] == [None, 1, 2]
    assert sum(line.drawn for line in ledger.sources[1:]) == ledger.sources[0].drawn


def test_a_plan_before_the_earlier_stage_is_trained_is_the_same(curriculum: Any) -> None:
    stage = two_stages(curriculum)
    chat = curriculum.chat(stage)
    after = plan_rows(stage.settings, chat, earlier=replayed_stages(stage)).ledger
    upcoming = {1: curriculum.surveyed(1).settings}
    before = plan_rows(stage.settings, chat, earlier=replayed_stages(stage, upcoming)).ledger
    assert before == after == curriculum.prepared(stage).ledger


def test_without_earlier_stages_nothing_is_replayed_and_that_is_said(curriculum: Any) -> None:
    curriculum.stage(1, SFT_REPLAY=0.5)
    prepared = curriculum.prepared(curriculum.surveyed(1))
    assert prepared.ledger.replayed == 0
    assert any("SFT_REPLAY=0.5: no earlier stage to draw from" in notice for notice in prepared.notices)


def test_in_a_mix_of_tokens_replay_is_counted_in_tokens_too(curriculum: Any) -> None:
    ledger = curriculum.prepared(two_stages(curriculum, SFT_MIX_UNIT="tokens")).ledger
    replayed = next(line for line in ledger.sources if line.replay_of == 1)
    assert replayed.encoded
    assert replayed.drawn == replayed.encoded.rows > 0
    assert replayed.realised == replayed.encoded.tokens
    assert replayed.requested == pytest.approx(replayed.encoded.tokens, rel=0.5 / replayed.drawn)


def test_a_key_that_came_after_a_stage_was_trained_does_not_make_it_stale(curriculum: Any) -> None:
    from dataclasses import replace

    from lib.lineage.ancestry import stale_reasons

    curriculum.stage(1)
    record = curriculum.train(1)
    stage = curriculum.surveyed(1)
    older = replace(
        record,
        identity={key: value for key, value in record.identity.items() if key != "SFT_ORDER"},
        settings={key: value for key, value in record.settings.items() if key != "SFT_ORDER"},
    )
    origins = stage.settings.origins
    assert stale_reasons(older, stage.identity, origins, as_run_now=True) == []
    given = {**origins, "SFT_ORDER": "stage1.env:9"}
    assert stale_reasons(older, {**stage.identity, "SFT_ORDER": "length"}, given, as_run_now=True) == [
        "SFT_ORDER changed from unset to length"
    ]
