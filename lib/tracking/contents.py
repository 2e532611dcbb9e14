"""What trackers are told of a stage, whichever they are.

Only the trainer's own keys are logged (an allow-list), so a token in an env file or in the
environment cannot leak; the tracking address is left out because it may carry a password.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from lib.lineage.record import StageRecord
from lib.settings import StageSettings
from lib.tracking.mix_metrics import mix_metrics
from lib.tracking.run_file import read_run_file

if TYPE_CHECKING:
    from lib.lineage.ancestry import Parent
    from lib.lineage.curriculum import SurveyedStage

NOT_LOGGED = frozenset({"MLFLOW_TRACKING_URI"})


def closing_metrics(record: StageRecord) -> Iterator[tuple[Mapping[str, float], int]]:
    """(metrics, step) that only the end of a stage knows: the scores before (step 0) and after, the realised
    mix, and what earlier stages kept."""
    steps, after = record.training["steps"], record.evaluation["after"]["metrics"]
    logged = {name for entry in record.training["history"] if entry.get("step") == steps for name in entry}
    yield record.evaluation["before"]["metrics"], 0
    # The weights that are kept may be those of an earlier step than the last that was scored.
    yield {name: value for name, value in after.items() if name not in logged}, steps
    yield {f"final/{name}": value for name, value in after.items() if "/" not in name}, steps
    yield mix_metrics(record.data["ledger"]), steps
    phases = record.training.get("phase_seconds", {})
    yield {f"phase_seconds/{name.replace(' ', '_')}": value for name, value in phases.items()}, steps
    for entry in record.evaluation["retention"]:
        if entry["now"] is not None:
            yield {f"retention/stage{entry['stage']}/{entry['headline']}": entry["now"]}, steps


def lineage_tags(stage: SurveyedStage) -> dict[str, str]:
    """Tags that tie the runs of one curriculum together."""
    settings = stage.settings
    parents = [parent for parent in stage.chain.parents if parent.record]
    return {
        "curriculum": settings.output.name,
        "curriculum.stage": str(settings.stage),
        "curriculum.base_model": settings.model.base_model,
        "curriculum.base_key": stage.chain.key,
        "curriculum.parent_runs": ",".join(run_id for parent in parents if (run_id := _run_of(parent))),
    }


def _run_of(parent: Parent) -> str:
    """Where the store was down at its end, the record does not know it."""
    file = read_run_file(parent.folder)
    recorded = parent.record.mlflow_run_id if parent.record else ""
    return recorded or (file.run_id if file else "")


def env_text(settings: StageSettings) -> str:
    """The stage's env file as it took effect: the trainer's own keys only, without comments."""
    lines = [
        f"{key}='{value}'"
        for key, value in settings.values.items()
        if settings.origins[key] != "default" and key not in NOT_LOGGED
    ]
    return (
        "\n".join([f"# {settings.env_file.name}: keys that were set, wherever they were set", *lines]) + "\n"
    )
