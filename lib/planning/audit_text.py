"""What the audit found in the data of a stage, for `--plan --audit`: as data and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from lib.audit.findings_file import finding_json
from lib.audit.refusal import MEANINGS
from lib.data.mixing.cleaning import Finding, audit_lines
from lib.data.stage_mixture import SourceRecord
from lib.settings import StageSettings
from lib.settings.errors import printable

SHOWN = 3
"""Rows of each check."""
OUTCOMES = {
    "off": "SFT_AUDIT=off: they stay in the mix",
    "report": "SFT_AUDIT=report: they stay in the mix and are counted",
    "remove": "SFT_AUDIT=remove: they are left out before the split",
    "refuse": "SFT_AUDIT=refuse: the stage does not start",
}


def audit_json(
    settings: StageSettings, findings: Sequence[Finding], sources: Sequence[SourceRecord]
) -> dict[str, Any]:
    """Counts by check and data set, and every row; `rows` are the rows of each data set."""
    lines = audit_lines(findings, removed=settings.audit.mode == "remove")
    return {
        "mode": settings.audit.mode,
        "checks": list(settings.audit.checks),
        "near_threshold": settings.audit.near_threshold,
        "rows": {source.name: source.rows for source in sources},
        "lines": [asdict(line) for line in lines],
        "findings": [finding_json(finding) for finding in findings],
    }


def audit_view(audit: dict[str, Any]) -> Group:
    """A table of counts, and the first rows of each check with what is wrong with them."""
    rows = sum(audit["rows"].values())
    head = f"audit: {len(audit['findings']):,} of {rows:,} rows found"
    if not audit["findings"]:
        return Group(Text(f"{head} by {', '.join(audit['checks'])}"))
    table = Table(title=head, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in ("check", "data set", "what"):
        table.add_column(name, overflow="fold")
    for name in ("found", "of its rows"):
        table.add_column(name, justify="right")
    for line in audit["lines"]:
        share = 100 * line["found"] / max(audit["rows"].get(line["source"], 0), 1)
        table.add_row(
            line["check"],
            Text(printable(line["source"])),
            MEANINGS[line["check"]],
            f"{line['found']:,}",
            f"{share:.1f} %",
        )
    return Group(table, *_examples(audit), Text(f"  {OUTCOMES[audit['mode']]}"))


def _examples(audit: dict[str, Any]) -> list[Text]:
    shown = []
    for check in audit["checks"]:
        found = [finding for finding in audit["findings"] if finding["check"] == check]
        for finding in found[:SHOWN]:
            other = f" ({finding['other']})" if finding["other"] else ""
            near = "" if finding["similarity"] is None else f", similarity {finding['similarity']:.3f}"
            line = f"  {check}  {finding['row']}: {finding['reason']}{other}{near}"
            shown.append(Text(printable(line)))
            shown.append(Text(printable(f"    {finding['excerpt']}"), style="dim"))
        if len(found) > SHOWN:
            shown.append(Text(f"    … and {len(found) - SHOWN:,} more (--json lists them)", style="dim"))
    return shown
