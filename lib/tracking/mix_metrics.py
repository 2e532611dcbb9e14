"""The realised mix as numbers for the tracker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

NOT_IN_A_METRIC = re.compile(r"[^\w\-. /]")


def mix_metrics(ledger: Mapping[str, Any]) -> dict[str, float]:
    """Shares asked for and realised, per data set and for negatives, and what the audit found; `ledger.json`
    has more of it, shares per label too.

    Names hold only what MLflow allows in a metric. Replayed rows have no share of the mix's weights.
    """
    trained = max(ledger["trained"] or 0, 1)
    found: dict[str, float] = {}
    for line in ledger["sources"]:
        name = f"mix/{_metric_name(line['id'])}"
        found[f"{name}/requested_{ledger['unit']}"] = line["requested"]
        found[f"{name}/realised_{ledger['unit']}"] = line["realised"]
        found[f"{name}/trained_share"] = (line["trained"] or 0) / trained
    for line in ledger["negatives"]:
        name = "mix/negatives" if line["scope"] == "*" else f"mix/negatives/{_metric_name(line['scope'])}"
        found[f"{name}/realised_share"] = line["realised"]
        if line["requested"] is not None:
            found[f"{name}/requested_share"] = line["requested"]
    for line in ledger.get("audit") or ():
        for what in ("found", "removed"):
            name = f"audit/{line['check']}/{what}"
            found[name] = found.get(name, 0.0) + line[what]
    return found


def _metric_name(name: str) -> str:
    """A data set or label as a part of a metric's name, which reads like a relative path."""
    return NOT_IN_A_METRIC.sub("_", name.lstrip("~./"))
