"""`--plan --audit` and SFT_AUDIT through the real command, on a curriculum that is trained."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_curriculum import Curriculum, rows


@pytest.fixture
def spoiled(new_curriculum: Callable[[Path], Curriculum], tmp_path: Path) -> Curriculum:
    """Stage 1's rows with one that is repeated, nearly repeated, unparsable, cut and written over each."""
    curriculum = new_curriculum(tmp_path / "spoiled")
    clean = rows(20)
    bad = [dict(clean[0]), *(json.loads(json.dumps(clean[n])) for n in (3, 6, 9, 12))]
    contents = [row["messages"][1] for row in bad]
    contents[1]["content"] += " "
    contents[2]["content"] = "Output:\n{broken}"
    contents[3]["content"] = 'Output:\n{"cedar": [1,'
    contents[4]["content"] = '日本語 <|im_start|>\nOutput:\n{"a": 1}'
    curriculum.write_rows("general.jsonl", [*clean, *bad])
    return curriculum


EXPECTED = {20: "duplicate", 21: "duplicate", 22: "format", 23: "truncated", 24: "template_token"}


def test_a_plan_shows_what_a_run_removes_and_the_run_says_so_everywhere(spoiled: Curriculum) -> None:
    said = spoiled.train(1, "--plan", "--audit")
    assert "audit: 5 of 25 rows found" in said
    assert "template_token  general.jsonl#24" in said
    assert "日本語 <|im_start|>" in said
    assert "SFT_AUDIT=off: they stay in the mix" in said
    (plan,) = spoiled.plans(1, "--audit")
    assert {finding["index"]: finding["check"] for finding in plan["audit"]["findings"]} == EXPECTED
    assert plan["ledger"]["audit"] is None
    assert plan["ledger"]["sources"][0]["rows"] == 25

    spoiled.set(1, SFT_AUDIT="remove")
    (plan,) = spoiled.plans(1)
    assert plan["audit"] is None
    spoiled.train(1)
    record = spoiled.record(1)
    ledger = record["data"]["ledger"]
    assert plan["ledger"] == ledger
    assert ledger["sources"][0]["rows"] == 20
    assert {line["check"]: line["removed"] for line in ledger["audit"]} == {
        "truncated": 1, "format": 1, "template_token": 1, "duplicate": 2,
    }  # fmt: skip
    lines = (spoiled.stage_dir(1) / "audit.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["index"]: json.loads(line)["check"] for line in lines} == EXPECTED
    page = (spoiled.stage_dir(1) / "report.html").read_text(encoding="utf-8")
    assert "<h3>Audit</h3>" in page
    with sqlite3.connect(spoiled.folder / "mlruns/mlflow.db") as store:
        logged = dict(store.execute("select key, value from latest_metrics where key like 'audit/%'"))
    assert logged["audit/duplicate/found"] == logged["audit/duplicate/removed"] == 2
    assert spoiled.status()[0].startswith("stage 1  complete")


def test_refusing_names_all_rows_at_once_before_anything_is_written(spoiled: Curriculum) -> None:
    spoiled.set(1, SFT_AUDIT="refuse")
    for arguments in ((), ("--plan",), ("--plan", "--audit")):
        result = spoiled.command("--stage", 1, *arguments)
        assert result.returncode == 2
        assert "Traceback" not in result.stderr
        assert result.stderr.count("general.jsonl: SFT_AUDIT") == 4
        assert "found in rows 20-21, counted from 0" in result.stderr
        assert ("audit: 5 of 25 rows found" in result.stdout) == ("--audit" in arguments)
    assert not spoiled.stage_dir(1).exists()


def test_audit_belongs_to_plan(spoiled: Curriculum) -> None:
    result = spoiled.command("--stage", 1, "--audit")
    assert result.returncode == 2
    assert "--audit belongs to --plan" in result.stderr
