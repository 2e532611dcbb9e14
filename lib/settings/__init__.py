"""Settings: from an env file, the process environment and `--set` to one frozen, typed StageSettings."""

from lib.settings.errors import InputError, Problem, Problems, RunError
from lib.settings.schema import (
    DataSettings,
    EvaluationSettings,
    LoraSettings,
    MixEntry,
    ModelSettings,
    StageSettings,
    TrackingSettings,
    TrainingSettings,
)
from lib.settings.stage import list_stages, load_stage, recorded_stage

__all__ = [
    "DataSettings",
    "EvaluationSettings",
    "InputError",
    "LoraSettings",
    "MixEntry",
    "ModelSettings",
    "Problem",
    "Problems",
    "RunError",
    "StageSettings",
    "TrackingSettings",
    "TrainingSettings",
    "list_stages",
    "load_stage",
    "recorded_stage",
]
