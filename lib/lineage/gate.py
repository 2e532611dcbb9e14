"""The retention gate: what a stage may cost the stages before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib.evaluation.evaluation_set import read_evaluation_set
from lib.evaluation.stage_evaluation import EarlierStage
from lib.lineage.ancestry import Chain
from lib.lineage.record import StageRecord, intact_record
from lib.settings import StageSettings

# Nine tenths of 0.8 is not quite 0.72 in floating point.
ROUNDING = 1e-9


def gated(record: StageRecord, minimum: float) -> list[dict[str, Any]]:
    """The record's `retention`, each entry with `minimum` (the share that must be left of the earlier score;
    None without a gate) and `passed` (None where nothing was demanded or measured).

    Judged anew each time, so that another SFT_RETENTION_MIN needs no training.
    """
    entries = []
    for entry in record.evaluation["retention"]:
        demanded = bool(minimum and entry["earlier"] and entry["now"] is not None)
        passed = entry["now"] >= minimum * entry["earlier"] - ROUNDING if demanded else None
        entries.append({**entry, "minimum": minimum or None, "passed": passed})
    return entries


def gate_failures(record: StageRecord, minimum: float) -> tuple[str, ...]:
    """A sentence for every earlier stage of whose score less than the share `minimum` is left."""
    return tuple(
        f"stage {entry['stage']}'s {entry['headline']} fell from {entry['earlier']:.3f} "
        f"to {entry['now']:.3f}: "
        f"{entry['now'] / entry['earlier']:.0%} is left, SFT_RETENTION_MIN={minimum:g} asks for {minimum:.0%}"
        for entry in gated(record, minimum)
        if entry["passed"] is False
    )


def failed_gate(settings: StageSettings) -> tuple[str, ...]:
    """The verdict on a stage that has just been completed: lines for the user; empty when it passed."""
    record = intact_record(settings.stage_dir)
    failures = gate_failures(record, settings.evaluation.retention_min) if record else ()
    if not failures:
        return ()
    return (
        f"stage {settings.stage} FAILED its retention gate; its files are kept in {settings.stage_dir}",
        *(f"  {failure}" for failure in failures),
        "  mix earlier data in (SFT_REPLAY, SFT_DATASET_MIX), lower SFT_LR or SFT_LORA_R and train it again, "
        "or accept the loss by lowering SFT_RETENTION_MIN",
    )


def earlier_stages(chain: Chain) -> list[EarlierStage]:
    """The evaluation sets of the stages below, with the score that each reached itself."""
    found = []
    for parent in chain.parents:
        rows = read_evaluation_set(Path(parent.folder))
        if rows and rows.examples and parent.record:
            after = parent.record.evaluation["after"]["metrics"]
            found.append(EarlierStage(rows, after.get(rows.headline)))
    return found
