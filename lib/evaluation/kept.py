"""Evaluations that a run has done, on disk until the stage is complete: a run that goes on does not repeat
them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.files import write_json

if TYPE_CHECKING:
    from lib.evaluation.heldout import Evaluation

PREFIX = "evaluated-"


def kept_evaluation(
    folder: Path, key: Any, evaluate: Callable[[], Evaluation], *, writes: bool
) -> Evaluation:
    """What `evaluate` gave for the same `key` (plain data: everything that decides it), then or now. Only one
    process `writes`, but all look: they evaluate together."""
    text = json.dumps(key, sort_keys=True, default=str)
    path = folder / f"{PREFIX}{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    found = _read(path)
    if found is None:
        found = evaluate()
        if writes:
            write_json(path, asdict(found))
    return found


def forget_evaluations(folder: Path) -> None:
    for path in folder.glob(f"{PREFIX}*.json"):
        path.unlink()


def _read(path: Path) -> Evaluation | None:
    from lib.evaluation.heldout import Evaluation

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["intervals"] = {name: (low, high) for name, (low, high) in content["intervals"].items()}
        return Evaluation(**content)
    except (OSError, ValueError, KeyError, TypeError):
        return None
