"""A configuration to import: `imported` writes the YAML and returns the stage, loaded, with its report."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

from lib.importing import ImportedStage, import_config
from lib.settings import StageSettings, load_stage


@dataclass(frozen=True)
class Imported:
    report: ImportedStage
    settings: StageSettings
    text: str

    def value(self, key: str) -> str:
        return self.settings.values[key]

    def differs(self, key: str) -> str:
        return self.report.draft.settings[key].differs

    def advice(self) -> dict[str, str]:
        return {entry.key: entry.advice for entry in self.report.draft.not_carried}


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Imported]:
    monkeypatch.chdir(tmp_path)

    def run(yaml: str, name: str = "config.yml") -> Imported:
        config = tmp_path / name
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(dedent(yaml), encoding="utf-8")
        folder = tmp_path / f"out{len(os.listdir(tmp_path))}"
        report = import_config(config, folder)
        return Imported(report, load_stage(folder, 1, environ={}), report.path.read_text(encoding="utf-8"))

    return run
