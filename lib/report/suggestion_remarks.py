"""What a suggestion found out about labels and does not act upon."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lib.evaluation.tally import nameable
from lib.report.label_scores import LabelScore, LabelScores
from lib.report.wording import enumeration, score, short_name


def label_remarks(
    record: Mapping[str, Any],
    ancestors: Sequence[Mapping[str, Any]],
    labels: LabelScores | None,
    *,
    held: bool,
) -> Iterator[str]:
    """Sentences; `held`: a declared share of negatives leaves no room for rules."""
    if labels is None:
        yield "No answers were scored, so nothing says what to train on: set SFT_GEN_EVAL_SAMPLES above 0."
    elif not labels.labels:
        yield "No label tells the scored rows apart, so no rule is proposed."
    else:
        if held and labels.rules:
            rules = json.dumps(labels.rules, ensure_ascii=False)
            yield f"Left out beside a declared share of negatives, which rules would move: {rules}."
        elif labels.rules:
            yield from _never_drawn(record)
        yield from (_without_rows(label, ancestors) for label in labels.missing)
        yield from _unsure(record, labels)


def _never_drawn(record: Mapping[str, Any]) -> Iterator[str]:
    """Where new rows are to be had; the ledger does not say which labels they carry."""
    found = [
        f"{line['unseen']:,} of {line['training']:,} in {short_name(line['id'])}"
        for line in record["data"]["ledger"]["sources"]
        if line["unseen"] and line.get("replay_of") is None
    ]
    if found:
        yield (
            f"Rules repeat the rows that are drawn. Never drawn were {enumeration(found)}: a larger weight "
            f"there brings new ones."
        )


def _without_rows(label: LabelScore, ancestors: Sequence[Mapping[str, Any]]) -> str:
    """Where rows with the label might be found; by the name that metrics have for it."""
    found = []
    for record in ancestors:
        ledger = record["data"]["ledger"]
        lines = (
            x for x in ledger["labels"] if (x["field"], nameable(x["value"])) == (label.field, label.value)
        )
        rows = sum(line["rows"] for line in lines)
        if rows:
            names = enumeration([short_name(line["id"]) for line in ledger["sources"]])
            found.append(f"stage {record['stage']} had {rows:,} of them, from {names}")
    where = f"; {'; '.join(found)}" if found else ""
    return f"{label.value} is behind and no row of the mix carries it, so no rule helps{where}."


def _unsure(record: Mapping[str, Any], labels: LabelScores) -> Iterator[str]:
    """How many rows would tell whether the weakest label is behind: intervals narrow with their root."""
    weakest = labels.labels[0]
    gap = labels.score - weakest.score
    if any(label.verdict == "behind" for label in labels.labels) or gap <= 0 or not labels.samples:
        return
    widths = weakest.interval[1] - weakest.score + labels.score - labels.interval[0]
    rows = math.ceil(labels.samples * (widths / gap) ** 2 / 10) * 10
    if rows > labels.samples:
        yield (
            f"{weakest.value} is weakest, {score(weakest.score)} where all rows have {score(labels.score)}, "
            f"but with {labels.samples:,} rows their intervals overlap. Should the difference be real, about "
            f"{rows:,} rows would show it: python train.py --stage {record['stage']} --evaluate-only "
            f"--set SFT_GEN_EVAL_SAMPLES={rows} (with --set SFT_GEN_EVAL_DATASET_ID=… where there are fewer)."
        )
