"""Records of stages whose labels were scored, made up."""

from collections.abc import Mapping
from typing import Any

from stage_records import stage_record

Interval = tuple[float, float]
METRIC = "gen_leaf_f1"


def label_line(field: str, value: str, drawn: int, rows: int = 400) -> dict[str, Any]:
    return {"field": field, "value": value, "rows": rows, "drawn": drawn, "share": 0.0, "requested": drawn}


def scored_record(
    labels: Mapping[str, tuple[float, Interval]],
    everything: tuple[float, Interval],
    lines: list[dict[str, Any]],
    *,
    stage: int = 2,
    draws: int = 800,
    size: float | None = None,
    replayed: int = 0,
    retention: tuple[dict[str, Any], ...] = (),
    **settings: str,
) -> dict[str, Any]:
    """`labels` are scores by what metrics call them (`xml`, `type/a_to_b`); `lines` are the ledger's."""
    found = {METRIC: everything, **{f"{METRIC}/{name}": scored for name, scored in labels.items()}}
    metrics = {name: score for name, (score, _) in found.items()} | {"gen_samples": 500.0}
    after = {"metrics": metrics, "intervals": {name: list(span) for name, (_, span) in found.items()}}
    evaluation = {
        "task": "structured",
        "headline": METRIC,
        "before": {"metrics": {}, "intervals": {}},
        "after": after,
        "retention": list(retention),
    }
    record = stage_record(stage, scores=evaluation)
    ledger = record["data"]["ledger"] | {
        "labels": lines,
        "upsampled": draws,
        "base_size": float(draws if size is None else size),
        "replayed": replayed,
        "negatives": [],
    }
    given = {
        "SFT_BASE_MODEL": "base",
        "SFT_OUT_LORA_DIR": "output/books",
        "SFT_DATASET_MIX": '[{"id": "data/基本.jsonl", "weight": 2.0}, {"id": "hub/x", "weight": 1.0}]',
        "SFT_STRICT": "1",
        **settings,
    }
    return record | {
        "data": {"sources": [], "ledger": ledger},
        "settings": given | {"SFT_LR": "1e-3"},
        "origins": {**dict.fromkeys(given, f"stage{stage}.env:1"), "SFT_LR": "--set"},
    }
