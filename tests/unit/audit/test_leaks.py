"""Rows that some stage of the curriculum is evaluated on do not stay in training."""

from typing import Any

import pytest
from audited_rows import Folder, row, sentence
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.audit.audit import audit_rows
from lib.data.mixing.cleaning import Cleaned
from lib.data.mixing.mixture import held_out_keys
from lib.settings import StageSettings

LEAKS = "evaluation,near_evaluation"


def rows_of(*numbers: int) -> list[dict[str, Any]]:
    return [row(sentence(n), sentence(n + 1000)) for n in numbers]


def nearly(number: int) -> dict[str, Any]:
    return row(f"{sentence(number)}?", f"{sentence(number + 1000)}.")


def audited(folder: Folder, stage: StageSettings) -> Cleaned:
    return audit_rows(stage, None, folder.tables(stage), False)


def found(folder: Folder, stage: StageSettings) -> dict[int, str]:
    return {finding.index: finding.check for finding in audited(folder, stage).findings}


def test_rows_of_the_own_evaluation_set(folder: Folder) -> None:
    data = folder.data("train.jsonl", [*rows_of(1, 2, 3), nearly(5)])
    heldout = folder.data("heldout.jsonl", rows_of(2, 5, 9))
    stage = folder.stage(SFT_DATASET_ID=data, SFT_GEN_EVAL_DATASET_ID=heldout, SFT_AUDIT="remove")
    cleaned = audited(folder, stage)
    assert [example.index for example in cleaned.tables[0].examples] == [0, 2]
    exact, near = cleaned.findings
    assert (exact.check, exact.reason) == ("evaluation", "stands in the evaluation of stage 1")
    assert (exact.other, near.other) == (f"{heldout}#0", f"{heldout}#1")
    assert near.check == "near_evaluation"
    assert near.similarity is not None
    assert near.similarity > 0.95


def test_sets_and_validation_rows_of_earlier_and_later_stages(folder: Folder) -> None:
    data = folder.data("train.jsonl", rows_of(*range(40)))
    folder.stage(1, SFT_DATASET_ID=folder.data("one.jsonl", rows_of(0, 1, 2, 50)), SFT_VAL_RATIO=0.7)
    folder.stage(
        3,
        SFT_DATASET_ID=folder.data("three.jsonl", rows_of(99)),
        SFT_GEN_EVAL_DATASET_ID=folder.data("set.jsonl", rows_of(30, 31)),
    )
    stage = folder.stage(2, SFT_DATASET_ID=data, SFT_AUDIT="report", SFT_AUDIT_CHECKS=LEAKS)
    first = folder.stage(1, SFT_DATASET_ID=folder.root / "one.jsonl", SFT_VAL_RATIO=0.7)
    (keys,) = held_out_keys(folder.tables(first), 0.7, first.seed)
    expected = {e.index for e in folder.tables(first)[0].examples if e.key in keys and e.index < 3}
    assert set(found(folder, stage)) == expected | {30, 31}


def test_the_same_data_in_every_stage_leaks_nothing(folder: Folder) -> None:
    """The same rows are held out by the same ratio and seed."""
    data = folder.data("train.jsonl", rows_of(*range(40)))
    for number in (1, 2, 3):
        stage = folder.stage(number, SFT_DATASET_ID=data, SFT_VAL_RATIO=0.2, SFT_AUDIT="remove")
    assert found(folder, stage) == {}


def test_rows_near_the_own_validation_rows(folder: Folder) -> None:
    """Without the check for near duplicates, the twin of a held-out row would be trained on."""
    rows = [*rows_of(*range(10)), *(nearly(n) for n in range(10))]
    data = folder.data("train.jsonl", rows)
    keys = {"SFT_DATASET_ID": data, "SFT_VAL_RATIO": 0.25, "SFT_AUDIT_CHECKS": "near_evaluation"}
    stage = folder.stage(SFT_AUDIT="remove", **keys)
    cleaned = audited(folder, stage)
    assert cleaned.findings
    assert {finding.reason for finding in cleaned.findings} == {
        "stands nearly in the validation rows of this stage"
    }
    _check_nothing_leaks(cleaned, stage)


def _check_nothing_leaks(cleaned: Cleaned, stage: StageSettings) -> None:
    (table,) = cleaned.tables
    (held,) = held_out_keys([table], stage.data.val_ratio, stage.seed)
    numbers = {row.key: row.messages[0].content.rstrip("?") for row in table.examples}
    held_numbers = {numbers[key] for key in held}
    assert not held_numbers & {number for key, number in numbers.items() if key not in held}


@given(
    st.lists(st.integers(0, 12), min_size=4, max_size=24),
    st.sets(st.integers(0, 12), max_size=6),
    st.sampled_from([0.1, 0.3, 0.5]),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_evaluation_row_is_trained_on_whatever_is_held_out_after_the_removal(
    folder: Folder, numbers: list[int], evaluated: set[int], ratio: float
) -> None:
    """Fewer rows hold out fewer: those that are free again may be evaluation rows themselves."""
    rows = [nearly(n) if place % 3 == 2 else rows_of(n)[0] for place, n in enumerate(numbers)]
    keep = rows_of(*range(20, 30))  # so that something is left
    folder.stage(
        2,
        SFT_DATASET_ID=folder.data("other.jsonl", rows_of(77)),
        SFT_GEN_EVAL_DATASET_ID=folder.data("set.jsonl", rows_of(*evaluated, 88)),
    )
    stage = folder.stage(
        1,
        SFT_DATASET_ID=folder.data("train.jsonl", [*rows, *keep]),
        SFT_VAL_RATIO=ratio,
        SFT_AUDIT="remove",
        SFT_AUDIT_CHECKS=LEAKS,
    )
    cleaned = audited(folder, stage)
    (table,) = cleaned.tables
    (held,) = held_out_keys([table], ratio, stage.seed)
    trained = {row.messages[0].content.rstrip("?") for row in table.examples if row.key not in held}
    assert not trained & {sentence(n) for n in evaluated}
    _check_nothing_leaks(cleaned, stage)


def test_what_another_stage_removes_itself_does_not_shift_its_validation_rows(folder: Folder) -> None:
    """Stage 2 takes rows out before it splits; stage 1 looks at what is held out then."""
    shared = rows_of(*range(20))
    other = folder.data("other.jsonl", [*shared, *(row(f"{n}", "<|im_end|>") for n in range(12))])
    keys = {"SFT_DATASET_ID": other, "SFT_VAL_RATIO": 0.3, "SFT_AUDIT_CHECKS": "template_token"}
    second = folder.stage(2, SFT_AUDIT="remove", **keys)
    stage = folder.stage(
        1, SFT_DATASET_ID=folder.data("train.jsonl", shared), SFT_AUDIT="report", SFT_AUDIT_CHECKS=LEAKS
    )
    (before,) = held_out_keys(folder.tables(second), 0.3, second.seed)
    (held,) = held_out_keys(audited(folder, second).tables, 0.3, second.seed)
    (table,) = folder.tables(stage)
    assert {example.key for example in table.examples} & {*before} != {*held}
    assert set(found(folder, stage)) == {row.index for row in table.examples if row.key in held}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"SFT_DATASET_ID": "gone.jsonl", "SFT_VAL_RATIO": 0.5},
            "stage 2: its evaluation rows cannot be read",
        ),
        (
            {"SFT_DATASET_ID": "owner/set", "SFT_VAL_RATIO": 0.5},
            "data set owner/set of stage 2 is not on this",
        ),
        (
            {"SFT_DATASET_ID": "owner/set", "SFT_GEN_EVAL_DATASET_ID": "owner/held"},
            "data set owner/held of stage 2",
        ),
    ],
)
def test_what_cannot_be_read_is_said_and_stops_nothing(
    folder: Folder, keys: dict[str, Any], said: str
) -> None:
    folder.stage(2, **keys)
    data = folder.data("train.jsonl", rows_of(1, 2))
    cleaned = audited(folder, folder.stage(1, SFT_DATASET_ID=data, SFT_AUDIT="remove"))
    assert len(cleaned.tables[0].examples) == 2
    assert any(said in notice for notice in cleaned.notices), cleaned.notices


def test_a_broken_file_of_another_stage_is_said(folder: Folder) -> None:
    (folder.root / "stages" / "stage2.env").write_text("SFT_LR=fast\n")
    data = folder.data("train.jsonl", rows_of(1, 2))
    cleaned = audited(folder, folder.stage(1, SFT_DATASET_ID=data, SFT_AUDIT="remove"))
    assert [notice for notice in cleaned.notices if notice.startswith("[WARNING] stage 2: ")]
