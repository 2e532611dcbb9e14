"""What the next stage of a curriculum should train on, by the scores of the last one: its settings, with the
keys that change and why. Pure arithmetic over stage records; docs/mixing.md explains it with an example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lib.report.forgotten import Kept, kept_scores, replay_share
from lib.report.label_scores import LabelScores, label_scores, recorded_value
from lib.report.mix_changes import (
    Change,
    experiment_change,
    negative_change,
    replay_change,
    rules_change,
    size_change,
)
from lib.report.negatives import NegativeAdvice, suggested_negatives
from lib.report.suggestion_remarks import label_remarks


@dataclass(frozen=True)
class NextStage:
    """The proposal: the settings of the stage that it is based on, with these changes."""

    stage: int
    based_on: Mapping[str, Any]
    """The record of the stage before it."""
    labels: LabelScores | None
    """None where answers were not scored."""
    kept: tuple[Kept, ...]
    negatives: NegativeAdvice | None
    changes: tuple[Change, ...]
    remarks: tuple[str, ...]
    """What was found and changes nothing."""


def next_stage(record: Mapping[str, Any], ancestors: Sequence[Mapping[str, Any]]) -> NextStage:
    """The proposal for the stage after `record`; `ancestors` are earlier records, in ascending order."""
    labels, negatives = label_scores(record), suggested_negatives(record)
    kept = kept_scores([*ancestors, record])
    present = recorded_value(record, "SFT_REPLAY")
    replay = replay_share(kept, present)
    share = negative_change(record, negatives)
    # Rules multiply after the share of negatives is made, and would move it: a declared share comes first.
    held = bool(share or recorded_value(record, "SFT_NEGATIVE_SHARE"))
    rules = labels.rules if labels and not held else {}

    changes = []
    if labels and rules:
        changes += rules_change(record, labels)
    if replay != present:
        changes += replay_change(kept, present, replay)
    if rules or replay != present:
        changes += size_change(record, labels if rules else None, replay)
    remarks = label_remarks(record, ancestors, labels, held=held)
    return NextStage(
        stage=int(record["stage"]) + 1,
        based_on=record,
        labels=labels.left_alone if labels and held else labels,
        kept=kept,
        negatives=negatives,
        changes=(*changes, *share, *experiment_change(record)),
        remarks=tuple(remarks),
    )
