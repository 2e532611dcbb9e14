"""Whatever tells a user to start MLflow's server binds it to this machine: its pages know no password."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACES = (
    "*.md",
    "*.py",
    "Makefile",
    "docs/*.md",
    "lib/**/*.py",
    "stages/**/*.env",
    "data/**/*.py",
    ".github/**/*",
)
TEXTS = sorted({path for place in PLACES for path in ROOT.glob(place) if path.is_file()})
SERVER = re.compile(r"mlflow (?:ui|server)\b[^`|\n]*--(?:port|backend)[^`|\n]*")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_server_is_bound_to_loopback(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "0.0.0.0" not in text
    assert [line for line in SERVER.findall(text) if "--host 127.0.0.1" not in line] == []


def test_there_are_such_lines() -> None:
    assert sum(len(SERVER.findall(path.read_text(encoding="utf-8"))) for path in TEXTS) >= 3
