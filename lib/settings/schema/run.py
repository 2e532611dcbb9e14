"""A stage as a whole: its own keys and the groups."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lib.settings.keys import key
from lib.settings.readers import LARGEST_SEED, flag, integer, path
from lib.settings.schema.audit import AuditSettings
from lib.settings.schema.data import DataSettings
from lib.settings.schema.evaluation import EvaluationSettings, TrackingSettings
from lib.settings.schema.model import LoraSettings, ModelSettings
from lib.settings.schema.training import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """Everything that decides a stage.

    `values` holds the text of every key as given or by default, passwords hidden: it is for showing and
    recording. `origins` says where each came from: "default", "stages/stage1.env:12", "environment", "--set".
    `notices` are lines for the user and the record; those of lenient mode begin with [WARNING].
    """

    stage: int
    env_file: Path
    strict: bool = key(
        "SFT_STRICT",
        "0",
        flag(),
        meaning="Whether a missing earlier adapter, a data set that fails to load, a row that cannot be used "
        "and a broken mix stop the run (1) or give a warning (0)",
    )
    seed: int = key(
        "SFT_SEED",
        "3407",
        integer(minimum=0, maximum=LARGEST_SEED),
        meaning="Seed of the split, the draws, the order, the adapter's start and the dropout",
    )
    output: Path = key(  # noqa: RUF009 (key() is a dataclass field)
        "SFT_OUT_LORA_DIR",
        None,
        path("a folder"),
        known_as=("SFT_OUTPUT_DIR", "SFT_OUT_DIR"),
        meaning="Where results go: stage N writes to this name followed by `_stageN`; the same in all stages",
    )
    model: ModelSettings
    lora: LoraSettings
    data: DataSettings
    audit: AuditSettings
    training: TrainingSettings
    evaluation: EvaluationSettings
    tracking: TrackingSettings
    values: Mapping[str, str]
    origins: Mapping[str, str]
    notices: tuple[str, ...] = ()

    @property
    def stage_dir(self) -> Path:
        """The stage's results."""
        return Path(f"{self.output}_stage{self.stage}")

    @property
    def merged_base_dir(self) -> Path:
        """The base that the stage trains on: every earlier adapter merged."""
        return Path(f"{self.output}_stage{self.stage}_merged_base")
