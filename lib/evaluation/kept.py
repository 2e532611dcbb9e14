"""Evaluations that a run has done, on disk until the stage is complete: a run that goes on does not repeat
them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lib.files import read_json, write_json

PREFIX = "evaluated-"


def kept_result(
    folder: Path, key: Any, evaluate: Callable[[], dict[str, Any]], *, writes: bool
) -> dict[str, Any]:
    """What `evaluate` gave for the same `key` (plain data: everything that decides it), then or now. Only one
    process `writes`, but all look: they evaluate together."""
    path = folder / f"{PREFIX}{_digest(key)[:16]}.json"
    found = _read(path)
    if found is None:
        found = evaluate()
        if writes:
            write_json(path, {"result": found, "checksum": _digest(found)})
    return found


def forget_results(folder: Path) -> None:
    for path in folder.glob(f"{PREFIX}*.json"):
        path.unlink()


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> dict[str, Any] | None:
    """None where there is none, or it is not as it was written: then it is evaluated again."""
    try:
        content = read_json(path)
        found: dict[str, Any] = content["result"]
        return found if content["checksum"] == _digest(found) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
