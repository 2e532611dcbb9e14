"""`audit.jsonl`: the rows that the audit of a stage found, one a line, kept beside its adapter. Replay and a
later evaluation take the removed ones out again, whatever the other stages have become since."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from lib.audit.audit import audit_rows
from lib.data.mixing.cleaning import Clean, Finding, without_rows
from lib.files import write_text
from lib.settings import StageSettings

AUDIT = "audit.jsonl"


def keep_findings(settings: StageSettings, findings: Iterable[Finding]) -> None:
    """Write the file, whole or not at all; nothing with SFT_AUDIT=off."""
    if settings.audit.mode != "off":
        lines = (json.dumps(finding_json(finding), ensure_ascii=False) + "\n" for finding in findings)
        write_text(settings.stage_dir / AUDIT, "".join(lines))


def finding_json(finding: Finding) -> dict[str, object]:
    return {"row": finding.row_id, **asdict(finding)}


def removed_rows(folder: Path, mode: str) -> frozenset[str]:
    """Ids of the rows that a finished stage left out, by its SFT_AUDIT; nothing where the file is gone."""
    if mode != "remove":
        return frozenset()
    try:
        lines = (folder / AUDIT).read_text(encoding="utf-8").split("\n")
        return frozenset(json.loads(line)["row"] for line in lines if line)
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()


def cleaning_of(settings: StageSettings) -> Clean:
    """The audit as it was when the stage was trained; of a stage that has left no file, as it is now."""
    if settings.audit.mode == "remove" and (settings.stage_dir / AUDIT).is_file():
        return without_rows(removed_rows(settings.stage_dir, settings.audit.mode))
    return audit_rows
