"""Every setting of a stage: key, type, allowed values, unit, default, meaning; declared only here, once.

docs/settings.md is generated from these classes (`python -m lib.settings.reference --write`).
"""

from lib.settings.json_values import MixEntry
from lib.settings.schema.audit import AuditSettings
from lib.settings.schema.data import DataSettings
from lib.settings.schema.evaluation import EvaluationSettings, TrackingSettings
from lib.settings.schema.model import LoraSettings, ModelSettings
from lib.settings.schema.run import StageSettings
from lib.settings.schema.training import TrainingSettings

__all__ = [
    "AuditSettings",
    "DataSettings",
    "EvaluationSettings",
    "LoraSettings",
    "MixEntry",
    "ModelSettings",
    "StageSettings",
    "TrackingSettings",
    "TrainingSettings",
]
