"""The audit as a whole: what the modes do, that plan and run agree, and that a second audit finds nothing."""

import json
from functools import partial
from typing import Any

import pytest
from audited_rows import Folder, row, sentence, tiny_chat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.audit.audit import audit_rows
from lib.audit.refusal import number_ranges
from lib.data.mixing.cleaning import Cleaned
from lib.data.prepare import plan_rows, prepare_rows
from lib.settings import InputError, StageSettings

JSON = {"metadata": {"format": "json"}}
ROWS = [
    row("one", '{"a": 1}', **JSON),
    row("two", "{broken}", **JSON),
    row("three", '{"a": [', **JSON),
    row("four", "Output:", **JSON),
    row("five", "tokens <|im_start|> inside"),
    row(sentence(1), sentence(2)),
    row(sentence(1), f"{sentence(2)} "),  # the same content
    row(sentence(1), f"{sentence(2)}!"),
    row(sentence(3), sentence(4)),
]
FOUND = {
    1: "format",
    2: "truncated",
    3: "empty",
    4: "template_token",
    6: "duplicate",
    7: "near_duplicate",
}


def audited(folder: Folder, rows: list[dict[str, Any]] = ROWS, **keys: Any) -> Cleaned:
    stage = folder.stage(SFT_DATASET_ID=folder.data("rows.jsonl", rows), **keys)
    return audit_rows(stage, None, folder.tables(stage), False)


def indices(cleaned: Cleaned) -> list[int]:
    return [example.index for table in cleaned.tables for example in table.examples]


def test_off_looks_at_nothing(folder: Folder) -> None:
    assert audited(folder) == Cleaned(
        tuple(folder.tables(folder.stage(SFT_DATASET_ID=folder.root / "rows.jsonl")))
    )


def test_report_counts_and_keeps_everything(folder: Folder) -> None:
    cleaned = audited(folder, SFT_AUDIT="report")
    assert {finding.index: finding.check for finding in cleaned.findings} == FOUND
    assert indices(cleaned) == list(range(9))
    (notice,) = cleaned.notices
    assert notice.startswith("[WARNING] The audit found 6 of 9 rows: empty 1, truncated 1, format 1,")


def test_remove_leaves_out_what_report_finds(folder: Folder) -> None:
    cleaned = audited(folder, SFT_AUDIT="remove")
    assert {finding.index: finding.check for finding in cleaned.findings} == FOUND
    assert indices(cleaned) == [0, 5, 8]
    assert cleaned.notices == (
        "Audit removed 6 of 9 rows: empty 1, truncated 1, format 1, template_token 1, duplicate 1, "
        "near_duplicate 1; --plan --audit shows them",
    )


def test_refuse_names_every_row_and_how_to_mend_it(folder: Folder) -> None:
    with pytest.raises(InputError) as error:
        audited(folder, [*ROWS, ROWS[1]], SFT_AUDIT="refuse")
    problems = {problem.value.partition(":")[0]: problem for problem in error.value.problems}
    assert len(problems) == 6
    unparsable = problems["answers that do not parse in their declared format (format)"]
    assert unparsable.where.endswith("rows.jsonl")
    assert unparsable.expected == "nothing that SFT_AUDIT_CHECKS finds; found in rows 1, 9, counted from 0"
    assert "SFT_AUDIT=remove" in unparsable.remedy
    assert "stage1.env" in unparsable.remedy
    clean = audited(folder, [ROWS[0], ROWS[8]], SFT_AUDIT="refuse")
    assert (len(clean.tables[0].examples), clean.findings, clean.notices) == (2, (), ())


def test_explaining_refuses_nothing_and_looks_in_every_mode(folder: Folder) -> None:
    data = folder.data("rows.jsonl", ROWS)
    for mode in ("off", "refuse", "report"):
        stage = folder.stage(SFT_DATASET_ID=data, SFT_AUDIT=mode)
        cleaned = audit_rows(stage, None, folder.tables(stage), False, explain=True)
        assert {finding.index: finding.check for finding in cleaned.findings} == FOUND
        assert len(indices(cleaned)) == 9


def test_only_the_chosen_checks_look(folder: Folder) -> None:
    cleaned = audited(folder, SFT_AUDIT="remove", SFT_AUDIT_CHECKS="duplicate,format")
    # A cut document does not parse either; the check that would have said so first was not chosen.
    assert {finding.index: finding.check for finding in cleaned.findings} == {
        1: "format",
        2: "format",
        3: "format",
        6: "duplicate",
    }


def test_the_threshold_decides_what_is_near(folder: Folder) -> None:
    rows = [row("q", sentence(1)), row("q", sentence(1)[:-40])]
    for threshold, found in ((0.7, 1), (0.9, 0)):
        cleaned = audited(folder, rows, SFT_AUDIT="report", SFT_NEAR_DUPLICATE_THRESHOLD=threshold)
        assert len(cleaned.findings) == found


def test_a_data_set_of_which_nothing_is_left_is_an_error(folder: Folder) -> None:
    first, second = (folder.data(f"{name}.jsonl", ROWS[5:6]) for name in "ab")
    stage = folder.stage(SFT_DATASET_IDS=f"{first},{second}", SFT_AUDIT="remove")
    with pytest.raises(InputError) as error:
        audit_rows(stage, None, folder.tables(stage), False)
    (problem,) = error.value.problems
    assert (problem.where, problem.key, problem.value) == (
        second,
        "SFT_AUDIT",
        "remove: none of 1 rows is left",
    )


def test_numbers_of_rows_are_said_shortly() -> None:
    assert number_ranges([3, 7, 8, 9, 12]) == "3, 7-9, 12"
    assert number_ranges([0]) == "0"


def test_very_many_rows_are_counted_and_the_first_thousand_listed(folder: Folder) -> None:
    with pytest.raises(InputError) as error:
        audited(folder, [row("q", sentence(1))] * 1502, SFT_AUDIT="refuse")
    (problem,) = error.value.problems
    assert "rows 1-1000 and 501 more (--plan --audit --json lists all)" in problem.expected


PIECES = st.sampled_from(
    [
        '{"a": 1}',
        "{broken}",
        '{"a": [',
        "Output:",
        "x <|im_end|>",
        sentence(1),
        sentence(1) + "!",
        sentence(2),
    ]
)


@given(st.lists(st.tuples(PIECES, PIECES.filter(str.strip)), min_size=3, max_size=14), st.floats(0, 0.5))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_a_removal_leaves_passes_a_second_audit(
    folder: Folder, texts: list[tuple[str, str]], ratio: float
) -> None:
    rows = [row(question, answer, **JSON) for question, answer in texts]
    stage = folder.stage(
        SFT_DATASET_ID=folder.data("rows.jsonl", rows), SFT_AUDIT="remove", SFT_VAL_RATIO=f"{ratio:.3f}"
    )
    tables = folder.tables(stage)
    try:
        cleaned = audit_rows(stage, None, tables, False)
    except InputError:  # nothing is left
        return
    assert len(indices(cleaned)) + len(cleaned.findings) == len(rows)
    again = audit_rows(stage, None, cleaned.tables, False)
    assert (again.findings, again.tables) == ((), cleaned.tables)


def mixed_stage(folder: Folder, **keys: Any) -> StageSettings:
    rows = [row(f"{sentence(n)}", f"Output: {sentence(n + 100)}", **JSON) for n in range(30)]
    mix = [
        {"id": folder.data("a.jsonl", [*rows[:20], *ROWS]), "weight": 1.0},
        {"id": folder.data("b.jsonl", [*rows[15:], *rows[15:18]]), "weight": 2.0},
    ]
    keys = {"SFT_DATASET_MIX": json.dumps(mix), "SFT_VAL_RATIO": 0.2, **keys}
    return folder.stage(
        SFT_BASE_MODEL="assets/tiny-moe", **{"SFT_AUDIT_CHECKS": "duplicate,truncated", **keys}
    )


@pytest.mark.parametrize("mode", ["report", "remove"])
def test_plan_and_run_agree_exactly_and_show_what_was_removed(folder: Folder, mode: str) -> None:
    stage, chat = mixed_stage(folder, SFT_AUDIT=mode), tiny_chat()
    run = prepare_rows(stage, chat, clean=audit_rows)
    plan = plan_rows(stage, chat, clean=partial(audit_rows, explain=True))
    assert plan.ledger == run.ledger
    assert plan.findings == run.findings
    assert run.ledger.audit is not None
    lines = {(line.source[-7:], line.check): (line.found, line.removed) for line in run.ledger.audit}
    removed = mode == "remove"
    assert lines == {
        ("a.jsonl", "truncated"): (1, int(removed)),
        ("a.jsonl", "duplicate"): (1, int(removed)),
        ("b.jsonl", "duplicate"): (8, 8 * removed),
    }
    assert [line.rows for line in run.ledger.sources] == ([27, 10] if removed else [29, 18])
    drawn = {example.row_id for example in run.mixture.train}
    assert bool(drawn & {finding.row_id for finding in run.findings}) != removed


def test_off_leaves_the_ledger_as_it_was(folder: Folder) -> None:
    stage, chat = mixed_stage(folder), tiny_chat()
    with_hook, without = prepare_rows(stage, chat, clean=audit_rows), prepare_rows(stage, chat)
    assert with_hook.ledger == without.ledger
    assert with_hook.ledger.audit is None
