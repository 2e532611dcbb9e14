"""Whatever tells a user to start MLflow's server binds it to this machine: its pages know no password."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("*.md", "*.py", "Makefile", "docs/*.md", "lib/**/*.py", "stages/**/*.env", "data/**/*.py")
TEXTS = {path: path.read_text(encoding="utf-8") for place in PLACES for path in sorted(ROOT.glob(place))}
SERVER = re.compile(r"mlflow (?:ui|server)\b[^`|\n]*--(?:port|backend)[^`|\n]*")


def test_a_server_is_bound_to_loopback() -> None:
    assert [path for path, text in TEXTS.items() if "0.0.0.0" in text] == []
    lines = [line for text in TEXTS.values() for line in SERVER.findall(text)]
    assert len(lines) >= 3
    assert [line for line in lines if "--host 127.0.0.1" not in line] == []
