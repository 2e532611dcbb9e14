"""A finished stage, fit to be used: on the base that it was trained on, with the files that it left."""

from __future__ import annotations

from lib.lineage.curriculum import SurveyedStage
from lib.lineage.record import StageRecord, intact_record
from lib.lineage.status import tampering
from lib.settings import InputError


def finished_record(stage: SurveyedStage) -> StageRecord:
    """The record of a stage that can be put on the base that it was trained on.

    Raises InputError when it is not complete, or when what lies under it has changed since.
    """
    record = intact_record(stage.settings.stage_dir)
    number = stage.settings.stage
    if record is None:
        raise InputError.of(
            where=str(stage.settings.stage_dir),
            key=f"stage {number}",
            value=": ".join((stage.status.state, *stage.status.reasons[:1])),
            expected="a complete stage",
            remedy=f"run python train.py --stage {number} first",
        )
    if record.base["key"] != stage.chain.key:
        raise InputError.of(
            where=str(stage.settings.stage_dir),
            key=f"stage {number}",
            value="; ".join(stage.status.reasons) or "stale",
            expected="the base and the earlier stages that it was trained on",
            remedy=f"put them back, or train it again: python train.py --stage {number}",
        )
    return record


def untouched_record(stage: SurveyedStage) -> StageRecord:
    """The same, and nothing in its folder was changed since. Raises InputError where something was."""
    record = finished_record(stage)
    changed = tampering(stage.settings, record)
    if changed:
        raise InputError.of(
            where=str(stage.settings.stage_dir),
            key=f"stage {stage.settings.stage}",
            value="; ".join(changed),
            expected="the files that its run left there",
            remedy=f"put them back, or train it again: python train.py --stage {stage.settings.stage}",
        )
    return record


def other_than_trained(stage: SurveyedStage) -> tuple[str, ...]:
    """A notice about a stage that would be trained otherwise now: what it is, it is all the same."""
    if stage.status.state != "stale":
        return ()
    number = stage.settings.stage
    return (
        f"[WARNING] stage {number} is stale ({'; '.join(stage.status.reasons)}); it is used as it was "
        f"trained. To train it as its file now says: python train.py --stage {number}",
    )
