"""`tracking.json` in a stage's folder: which run the stage is, and how much of its journal the store has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from lib.files import read_json, write_json
from lib.lineage.record import TRACKING


@dataclass(frozen=True)
class RunFile:
    """`sent` are bytes of the journal; `aside` are spans of it, [from, to), that the store would not take."""

    run_id: str
    experiment: str
    store: str
    """The address, its password hidden."""
    journal: str
    sent: int = 0
    aside: Sequence[Sequence[int]] = ()

    def write(self, stage_dir: Path) -> None:
        write_json(stage_dir / TRACKING, asdict(self))


def read_run_file(stage_dir: Path) -> RunFile | None:
    """None where there is none, or where it is damaged."""
    try:
        content = read_json(stage_dir / TRACKING)
        found = RunFile(**{field.name: content[field.name] for field in fields(RunFile)})
        spans = [(int(start), int(end)) for start, end in found.aside]
        texts = (found.run_id, found.experiment, found.store, found.journal)
        sound = all(isinstance(text, str) for text in texts) and Path(found.journal).name == found.journal
        return replace(found, sent=int(found.sent), aside=spans) if sound and found.journal else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
