"""The audit in a plan's text: counts, three rows of each check, nothing that moves the cursor."""

from io import StringIO
from typing import Any

from rich.console import Console

from lib.data.mixing.cleaning import Finding
from lib.data.stage_mixture import SourceRecord
from lib.planning.audit_text import audit_json, audit_view


def said(curriculum: Any, findings: list[Finding], **keys: Any) -> str:
    curriculum.stage(1, **keys)
    settings = curriculum.surveyed(1).settings
    sources = [SourceRecord("a", "a", "train", None, 200, "")]
    page = StringIO()
    audit = audit_json(settings, findings, sources)
    Console(file=page, width=140).print(audit_view(audit), soft_wrap=True)
    return page.getvalue()


def test_counts_and_the_first_three_rows_of_each_check(curriculum: Any) -> None:
    findings = [Finding("format", "a", i, "no JSON: 壊れた", f"{{行 {i}") for i in range(5)]
    findings.append(Finding("near_duplicate", "a", 9, "nearly the same stands earlier", "x | y", "a#1", 0.93))
    text = said(curriculum, findings, SFT_AUDIT="remove")
    assert "audit: 6 of 200 rows found" in text
    assert "2.5 %" in text
    assert text.count("no JSON: 壊れた") == 3
    assert "… and 2 more (--json lists them)" in text
    assert "near_duplicate  a#9: nearly the same stands earlier (a#1), similarity 0.930" in text
    assert text.index("format") < text.index("near_duplicate")
    assert "SFT_AUDIT=remove: they are left out before the split" in text


def test_nothing_found_is_said(curriculum: Any) -> None:
    assert said(curriculum, [], SFT_AUDIT_CHECKS="format") == "audit: 0 of 200 rows found by format\n"


def test_rows_cannot_move_the_cursor(curriculum: Any) -> None:
    text = said(curriculum, [Finding("empty", "a", 0, "\x1b[2J", "\x1b]0;title\x07[bold]x[/]")])
    assert "\x1b" not in text
    assert "[bold]x[/]" in text
