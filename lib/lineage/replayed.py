"""The earlier stages that a stage replays, from their records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib.audit.findings_file import removed_rows
from lib.data.stage_mixture import ReplayedStage
from lib.evaluation.evaluation_set import read_evaluation_set
from lib.lineage.ancestry import Parent
from lib.lineage.curriculum import SurveyedStage
from lib.settings import StageSettings, recorded_stage


def replayed_stages(
    stage: SurveyedStage, upcoming: Mapping[int, StageSettings] | None = None
) -> tuple[ReplayedStage, ...]:
    """What SFT_REPLAY draws from, oldest first: nothing where it is 0.

    An ancestor counts as its record says; `upcoming` are the settings of those that the same command trains
    first, which a plan takes instead. One without either is left out.
    """
    if not stage.settings.data.replay:
        return ()
    ahead = dict(upcoming or {})
    recorded = {
        parent.stage: _as_recorded(parent)
        for parent in stage.chain.parents
        if parent.record and parent.stage not in ahead
    }
    planned = {number: ReplayedStage(settings) for number, settings in ahead.items()}
    found = {**recorded, **planned}
    return tuple(found[number] for number in sorted(found) if number < stage.settings.stage)


def _as_recorded(parent: Parent) -> ReplayedStage:
    record = parent.record
    assert record is not None
    lines: list[dict[str, Any]] = record.data["ledger"]["sources"]
    evaluated = read_evaluation_set(parent.folder)
    return ReplayedStage(
        settings=recorded_stage(parent.stage, record.settings, record.origins),
        fingerprints={source["name"]: source["fingerprint"] for source in record.data["sources"]},
        draws={line["id"]: line["upsampled"] for line in lines if line.get("replay_of") is None},
        evaluated=frozenset(example.key for example in evaluated.examples) if evaluated else frozenset(),
        removed=removed_rows(parent.folder, record.settings.get("SFT_AUDIT", "off")),
    )
