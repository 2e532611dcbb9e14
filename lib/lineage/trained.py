"""`trained.json`: training is done, the evaluation is not. Written after the adapter, deleted after the
record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.files import read_json, sync, write_json
from lib.lineage.file_hashes import file_sha256
from lib.lineage.fingerprint import json_sha256
from lib.model.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS

if TYPE_CHECKING:
    from lib.training.trainer import FitResult

TRAINED = "trained.json"


@dataclass(frozen=True)
class Trained:
    """What training came to, and of which run it was."""

    fingerprint: dict[str, str]
    adapter_sha256: str
    result: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.result["steps"])

    def fit_result(self) -> FitResult:
        from lib.training.trainer import FitResult

        known = [name for name in FitResult.__dataclass_fields__ if name in self.result]
        content = {name: self.result[name] for name in known}
        return FitResult(**content | {"notices": tuple(content["notices"])})

    def checksum(self) -> str:
        return json_sha256(asdict(self))


def keep_trained(stage_dir: Path, fingerprint: Mapping[str, str], fitted: FitResult) -> None:
    """Say that the adapter in the folder is what training came to."""
    for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG):
        sync(stage_dir / name)
    trained = Trained(dict(fingerprint), file_sha256(stage_dir / ADAPTER_WEIGHTS), fitted.to_json())
    write_json(stage_dir / TRAINED, {**asdict(trained), "checksum": trained.checksum()})


def read_trained(stage_dir: Path) -> Trained | None:
    """None when training is not done, or the file is damaged. The adapter is not looked at."""
    try:
        content = read_json(stage_dir / TRAINED)
        checksum = content.pop("checksum")
        trained = Trained(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return trained if trained.checksum() == checksum else None


def has_its_adapter(stage_dir: Path, trained: Trained) -> bool:
    try:
        return file_sha256(stage_dir / ADAPTER_WEIGHTS) == trained.adapter_sha256
    except OSError:
        return False
