"""`stage.json`: what a stage was made from and what came of it. Written last: its presence means complete."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lib.files import read_json, write_json
from lib.lineage.fingerprint import json_sha256
from lib.lineage.versions import library_version
from lib.settings.schema.model import Quantization

RECORD = "stage.json"
REPORT = "report.html"
SCHEMA = 3
RUNNING = "running.json"
"""Locked by the run that trains the stage."""
TRACKING = "tracking.json"
"""The tracker's own: which run of it the stage is. It goes with a run, also over interruptions."""
LIBRARIES = (
    "torch",
    "transformers",
    "peft",
    "trl",
    "deepspeed",
    "accelerate",
    "datasets",
    "tokenizers",
    "mlflow",
    "bitsandbytes",
)


@dataclass(frozen=True)
class StageRecord:
    """Everything that is kept about a finished stage. All values are plain JSON."""

    stage: int
    settings: dict[str, str]
    origins: dict[str, str]
    identity: dict[str, str]
    """What decides the result: compared with the present to say whether the stage is up to date."""
    base: dict[str, Any]
    parents: list[dict[str, Any]]
    adapter_sha256: str
    files: dict[str, str]
    """sha256 of the files that others load: adapter, its configuration, tokenizer, chat template."""
    chat: dict[str, Any]
    """How the chat template writes conversations: what later stages are held to."""
    data: dict[str, Any]
    adapter: dict[str, Any]
    training: dict[str, Any]
    evaluation: dict[str, Any]
    notices: list[str]
    mlflow_run_id: str
    finished: str
    versions: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA
    checksum: str = ""
    """Of everything else in the file."""

    @property
    def kept_step(self) -> int:
        """The step whose weights became the adapter: the best evaluated one, where that was kept."""
        return int(self.training["kept_step"])

    @property
    def merge_mode(self) -> Literal["merge", "stack"]:
        """How the earlier stages entered the base. Records from before there was a choice do not name it."""
        return "stack" if self.base.get("mode") == "stack" else "merge"

    @property
    def quantization(self) -> Quantization:
        """How the base was loaded. Records from before there was a choice do not name it."""
        found: Quantization = self.base.get("quantization", "none")
        return found

    @property
    def intact(self) -> bool:
        """Whether the file is as it was written."""
        try:
            return self.checksum == _checksum(self)
        except RecursionError:  # nobody wrote it nested like that
            return False


def _checksum(record: StageRecord) -> str:
    # By way of JSON, where keys are text and paths are too.
    content = json.loads(json.dumps(asdict(replace(record, checksum="")), default=str))
    return json_sha256(content)


def write_record(stage_dir: Path, record: StageRecord) -> None:
    """`stage.json`, atomically and sealed with its checksum."""
    write_json(stage_dir / RECORD, asdict(replace(record, checksum=_checksum(record))))


def read_record(stage_dir: Path) -> StageRecord | None:
    """The record of a complete stage; None when the stage is not complete or the record is damaged."""
    try:
        content = read_json(stage_dir / RECORD)
        known = {name: content[name] for name in StageRecord.__dataclass_fields__}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return StageRecord(**known) if known["schema"] == SCHEMA else None


def intact_record(stage_dir: Path) -> StageRecord | None:
    """The same, but None also when the file is not as its run wrote it: its parts may then be anything."""
    record = read_record(stage_dir)
    return record if record is not None and record.intact else None


def versions() -> dict[str, str]:
    """Versions of Python, the libraries that compute, and this project's own commit."""
    found = {"python": platform.python_version(), "code": code_version()}
    for library in LIBRARIES:
        found[library] = library_version(library)
    return found


def code_version() -> str:
    """Commit of this checkout, with `-dirty` where files were changed; "unknown" outside git."""
    root = Path(__file__).resolve().parents[2]
    git = shutil.which("git")
    if git is None:
        return "unknown"
    command = [git, "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"
