"""The stages of a curriculum on several machines: all look at the same before they begin."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from lib.lineage.curriculum import SurveyedStage, survey_one
from lib.lineage.record import RUNNING, TRACKING
from lib.settings import StageSettings, list_stages
from lib.training.machines.agreement import OF_A_MACHINE, software
from lib.training.machines.alone import Alone
from lib.training.watchdog.stall_files import STALLS, TALK

OWN = (
    RUNNING, TRACKING, "tracking-*.jsonl", STALLS, f"{TALK}/*", "failure*.log",
    "*.part", "*.part/*", "*.old/*", "*.removed/*",
)  # fmt: skip
"""What a machine keeps to itself."""


def survey_together(
    machines: Alone, stages_dir: Path, number: int, *, chosen: Sequence[int], overrides: Sequence[str]
) -> SurveyedStage:
    """One stage as `survey_one` finds it, on every machine with the same settings and software. Where the
    machines do not share the output folder, each has this stage and those before it as rank 0 has them.

    Raises InputError for what a machine has otherwise.
    """
    stage = survey_one(stages_dir, number, chosen=chosen, overrides=overrides)
    settings = stage.settings
    machines.agree("settings", {**software(), **_settings(settings)})
    if not machines.look(settings.stage_dir.parent):
        return stage
    for earlier in list_stages(stages_dir):
        if earlier <= number:
            machines.mirror(Path(f"{settings.output}_stage{earlier}"), is_shared, empties=False)
    return survey_one(stages_dir, number, chosen=chosen, overrides=overrides)


def is_shared(name: str) -> bool:
    """Whether a file of a stage's folder has to be the same on all machines."""
    return not any(fnmatch(name, pattern) for pattern in OWN)


def _settings(settings: StageSettings) -> dict[str, str]:
    return {key: value for key, value in settings.values.items() if key not in OF_A_MACHINE}
