"""What an audit means for records, staleness, replay and evaluation."""

import json
from pathlib import Path
from typing import Any

from lib.audit.findings_file import AUDIT, cleaning_of, removed_rows
from lib.data.prepare import load_mixture, plan_rows
from lib.lineage.record import read_record
from lib.lineage.replayed import replayed_stages

CHECKS = "duplicate,evaluation"


def write(path: Path, *numbers: int) -> Path:
    rows = ({"prompt": f"question {i}", "completion": f"答え {i}"} for i in numbers)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def audited(curriculum: Any, **keys: Any) -> Any:
    """A trained stage 1: 30 rows, of which 10 stand twice and two in its evaluation set."""
    write(curriculum.data, *range(30), *range(10))
    heldout = write(curriculum.root / "heldout.jsonl", 20, 21, 99)
    values = {"SFT_AUDIT": "remove", "SFT_AUDIT_CHECKS": CHECKS, "SFT_GEN_EVAL_DATASET_ID": heldout, **keys}
    curriculum.stage(1, **values)
    return curriculum.train(1)


def test_the_record_counts_what_was_removed_and_the_file_lists_it(curriculum: Any) -> None:
    record = audited(curriculum)
    name = str(curriculum.data)
    counted = {"source": name, "found": 10, "removed": 10}
    assert record.data["ledger"]["audit"] == (
        {**counted, "check": "duplicate"},
        {"source": name, "check": "evaluation", "found": 2, "removed": 2},
    )
    lines = (curriculum.folder(1) / AUDIT).read_text(encoding="utf-8").split("\n")[:-1]
    found = [json.loads(line) for line in lines]
    assert len(found) == sum(line["found"] for line in record.data["ledger"]["audit"])
    assert found[0]["row"] == f"{name}#30"
    assert found[0]["other"] == f"{name}#0"
    assert "答え 0" in lines[0]
    assert any(notice.startswith("Audit removed ") for notice in record.notices)
    assert removed_rows(curriculum.folder(1), "remove") == {entry["row"] for entry in found}
    assert removed_rows(curriculum.folder(1), "report") == frozenset()


def test_looking_does_not_make_a_stage_stale_but_removing_does(curriculum: Any) -> None:
    audited(curriculum, SFT_AUDIT="off")
    heldout = curriculum.root / "heldout.jsonl"
    for mode, checks in (("report", CHECKS), ("refuse", "format"), ("off", "empty")):
        curriculum.stage(1, SFT_AUDIT=mode, SFT_AUDIT_CHECKS=checks, SFT_GEN_EVAL_DATASET_ID=heldout)
        assert curriculum.state(1) == "complete"
    curriculum.stage(
        1,
        SFT_AUDIT="remove",
        SFT_AUDIT_CHECKS=CHECKS,
        SFT_GEN_EVAL_DATASET_ID=heldout,
        SFT_NEAR_DUPLICATE_THRESHOLD=0.8,
    )
    stage = curriculum.surveyed(1)
    assert stage.status.state == "stale"
    assert "SFT_AUDIT changed from unset to remove" in stage.status.reasons


def test_evaluation_sets_whose_rows_are_left_out_count_by_content(curriculum: Any) -> None:
    audited(curriculum)
    assert curriculum.state(1) == "complete"
    write(curriculum.root / "heldout.jsonl", 20, 21, 22)
    (reason,) = curriculum.surveyed(1).status.reasons
    assert reason == f"data set {curriculum.root / 'heldout.jsonl'} of the evaluation of stage 1 changed"


def test_a_stage_that_comes_later_does_not_make_this_one_stale(curriculum: Any) -> None:
    audited(curriculum)
    curriculum.stage(2, SFT_GEN_EVAL_DATASET_ID=write(curriculum.root / "later.jsonl", 25))
    assert curriculum.state(1) == "complete"


def test_replay_takes_the_rows_that_were_really_trained_on(curriculum: Any) -> None:
    """Also when a stage was added since whose evaluation rows the earlier stage would leave out today."""
    record = audited(curriculum)
    later = write(curriculum.root / "later.jsonl", *range(22, 28))
    own = write(curriculum.root / "own.jsonl", *range(100, 160))
    curriculum.stage(2, SFT_DATASET_ID=own, SFT_REPLAY=0.25, SFT_GEN_EVAL_DATASET_ID=later)
    stage = curriculum.surveyed(2)
    ledger = curriculum.prepared(stage).ledger
    replayed = next(line for line in ledger.sources if line.replay_of == 1)
    drawn = next(line for line in record.data["ledger"]["sources"])["upsampled"]
    assert replayed.rows == drawn
    assert ledger == plan_rows(stage.settings, curriculum.chat(stage), earlier=replayed_stages(stage)).ledger


def test_a_later_evaluation_asks_the_same_rows(curriculum: Any) -> None:
    audited(curriculum, SFT_GEN_EVAL_DATASET_ID="")
    stage = curriculum.surveyed(1)
    then = curriculum.prepared(stage).mixture.validation
    write(curriculum.root / "later.jsonl", *range(30))
    curriculum.stage(2, SFT_GEN_EVAL_DATASET_ID=curriculum.root / "later.jsonl")
    now = load_mixture(stage.settings, curriculum.chat(stage), clean=cleaning_of(stage.settings))
    assert now.validation == then
    assert read_record(curriculum.folder(1)) is not None
