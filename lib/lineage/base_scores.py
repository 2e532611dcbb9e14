"""Scores of the untouched base on every stage's evaluation set: the first row of the retention matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.files import read_json, write_json

if TYPE_CHECKING:
    from lib.evaluation.stage_evaluation import Retained

BASE_SCORES = "gen_metrics_step0.json"


def base_scores_file(output: Path) -> Path:
    return Path(f"{output}_stage0") / BASE_SCORES


def keep_base_scores(output: Path, base_fingerprint: str, scored: Sequence[Retained]) -> None:
    """Write `{output}_stage0/gen_metrics_step0.json`."""
    path = base_scores_file(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "step": 0,
        "base_fingerprint": base_fingerprint,
        "sets": [entry.to_json() for entry in scored],
        "samples": {str(entry.stage): entry.evaluation.samples for entry in scored},
    }
    write_json(path, content)


def read_base_scores(output: Path, base_fingerprint: str) -> list[dict[str, Any]]:
    """One entry per evaluation set (`stage`, `headline`, `now`, `interval`, `metrics`); empty where the base
    was not scored, or was another one then."""
    try:
        content = read_json(base_scores_file(output))
        sets: list[dict[str, Any]] = content["sets"]
        return sets if content["base_fingerprint"] == base_fingerprint else []
    except (OSError, ValueError, KeyError, TypeError):
        return []
