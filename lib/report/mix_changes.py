"""The keys of a mix that a suggestion changes, each with its arithmetic in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lib.report.forgotten import LARGEST_REPLAY, SMALLEST_REPLAY, Kept
from lib.report.label_scores import LARGEST_MULTIPLIER, LabelScore, LabelScores, present_rules, recorded_value
from lib.report.negatives import NegativeAdvice
from lib.report.wording import number, score


@dataclass(frozen=True)
class Change:
    """A key of the next stage that is not what it was."""

    key: str
    value: str
    was: str
    why: str


def rules_change(record: Mapping[str, Any], labels: LabelScores) -> list[Change]:
    """The rules of the stage with those of the labels that are behind."""
    rules = {**present_rules(record), **labels.rules}
    why = "; ".join(
        _multiplied(label, labels.score) for label in labels.labels if label.value in labels.rules
    )
    changes = [_change(record, "SFT_UPSAMPLE_RULES", json.dumps(rules, ensure_ascii=False), why)]
    if not recorded_value(record, "SFT_USE_UPSAMPLING"):
        changes.insert(0, _change(record, "SFT_USE_UPSAMPLING", "1", "applies the rules"))
    return changes


def _multiplied(label: LabelScore, everything: float) -> str:
    had = "" if label.present == 1.0 else f"{label.present:g} × "
    wanted = label.present * (1 - label.score) / (1 - everything)
    held = f", held to {label.proposed:g}" if wanted > LARGEST_MULTIPLIER else ""
    return f"{label.value}: {had}(1 - {label.score:.3f}) / (1 - {everything:.3f}) = {wanted:.2f}{held}"


def replay_change(kept: Sequence[Kept], present: float, replay: float) -> list[Change]:
    worst = max(kept, key=lambda entry: entry.lost)
    held = (
        ""
        if round(present + worst.lost, 2) == replay
        else f", held to {SMALLEST_REPLAY:g} to {LARGEST_REPLAY:g}"
    )
    why = (
        f"on the set of stage {worst.stage}, {worst.metric} was {score(worst.best)} {worst.best_model} "
        f"and is {score(worst.now)} now; {present:g} + (1 - {worst.now:.2f} / {worst.best:.2f}) = "
        f"{present + worst.lost:.2f}{held}"
    )
    return [Change("SFT_REPLAY", f"{replay:g}", f"{present:g}", why)]


def negative_change(record: Mapping[str, Any], negatives: NegativeAdvice | None) -> list[Change]:
    """None where shares are declared by data set or label: the advice is about the mix as a whole."""
    key = "SFT_NEGATIVE_SHARE"
    if negatives is None or negatives.share is None or record["settings"].get(key, "").startswith("{"):
        return []
    return [_change(record, key, f"{negatives.share:.2f}", negatives.arithmetic)]


def size_change(record: Mapping[str, Any], labels: LabelScores | None, replay: float) -> list[Change]:
    """The size of the mix with which an epoch keeps its number of draws; none where something else decides
    how long the stage is.

    Rules and replay come on top of the size. With own draws d, all draws a = d / (1 - old share of replay),
    g draws that the rules add to d, and a new share r: size × a (1 - r) / (d + g).
    """
    if recorded_value(record, "SFT_MIX_WEIGHTS") != "share" or recorded_value(record, "SFT_MAX_STEPS") > 0:
        return []
    ledger = record["data"]["ledger"]
    whole, own = ledger["upsampled"], ledger["upsampled"] - ledger.get("replayed", 0)
    raised = [label for label in labels.labels if label.proposed != label.present] if labels else []
    added = sum(label.draws * own / whole * (label.proposed / label.present - 1) for label in raised)
    before = ledger["base_size"]
    wanted = whole * (1 - replay)
    size = max(round(before * wanted / (own + added)), 1)
    why = (
        f"an epoch keeps about {number(whole)} draws, {number(own)} of its own"
        + (f" and {added:,.0f} that the rules add" if added else "")
        + (f", {replay:.0%} of them replayed" if replay else "")
        + f"; {before:,.0f} × {wanted:,.0f} / {own + added:,.0f} = {size:,}"
    )
    return [_change(record, "SFT_DATASET_MIX_TOTAL_SIZE", str(size), why)]


def experiment_change(record: Mapping[str, Any]) -> list[Change]:
    """An experiment that is named after its stage: `toml-stage2` is not where stage 3 belongs."""
    key, number = "MLFLOW_EXPERIMENT_NAME", int(record["stage"])
    given = record["settings"].get(key, "")
    if record["origins"].get(key, "default") == "default" or not given.endswith(f"stage{number}"):
        return []
    renamed = f"{given.removesuffix(str(number))}{number + 1}"
    return [_change(record, key, renamed, "the experiment is named after its stage")]


def _change(record: Mapping[str, Any], key: str, value: str, why: str) -> Change:
    return Change(key, value, record["settings"].get(key, ""), why)
