"""Evaluation by generation, and where runs are tracked."""

from dataclasses import dataclass
from typing import Literal

from lib.settings.keys import key
from lib.settings.readers import (
    LARGEST_SEED,
    choice,
    flag,
    integer,
    local_or_named,
    number,
    regular_expression,
    text,
)


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Evaluation by generation: the trained stage answers held-out prompts and the answers are scored."""

    dataset_id: str = key(
        "SFT_GEN_EVAL_DATASET_ID",
        "",
        local_or_named("a Hub id or a local path, or empty"),
        meaning="Data set with the prompts; empty: the validation rows",
    )
    samples: int = key(
        "SFT_GEN_EVAL_SAMPLES",
        "200",
        integer(minimum=0),
        unit="rows",
        meaning="How many prompts are answered; 0: no generation",
    )
    seed: int = key(
        "SFT_GEN_EVAL_SEED",
        "42",
        integer(minimum=0, maximum=LARGEST_SEED),
        meaning="Which prompts are chosen",
    )
    batch_size: int = key(
        "SFT_GEN_EVAL_BATCH_SIZE", "16", integer(minimum=1), unit="rows", meaning="Prompts answered at a time"
    )
    max_new_tokens: int = key(
        "SFT_GEN_EVAL_MAX_NEW_TOKENS", "1024", integer(minimum=1), unit="tokens", meaning="Longest answer"
    )
    token_budget: int = key(
        "SFT_GEN_EVAL_TOKEN_BUDGET",
        "0",
        integer(minimum=0),
        unit="tokens",
        meaning="No further prompts are begun once one evaluation has generated this many; 0: no bound",
    )
    time_budget: float = key(
        "SFT_GEN_EVAL_TIME_BUDGET",
        "0",
        number(minimum=0),
        unit="seconds",
        meaning="The same by the clock; which prompts are answered then depends on the machine. 0: no bound",
    )
    every: int = key(
        "SFT_GEN_EVAL_EVERY",
        "1",
        integer(minimum=0),
        unit="evaluations",
        meaning="While training, answers are generated at every so manieth evaluation (SFT_EVAL_STEPS); "
        "0: only when the stage is done",
    )
    task: Literal["auto", "structured", "extraction", "chat"] = key(
        "SFT_GEN_EVAL_TASK",
        "auto",
        choice("auto", "structured", "extraction", "chat"),
        meaning="What answers are judged as; auto: by what the references and labels look like",
    )
    style: str = key(
        "SFT_GEN_EVAL_STYLE",
        "",
        regular_expression("a regular expression"),
        meaning="For chat: what an answer in the wanted style matches somewhere, such as `にゃ[。!]?$`",
    )
    retention_min: float = key(
        "SFT_RETENTION_MIN",
        "0",
        number(minimum=0, maximum=1),
        unit="share of the earlier score",
        meaning="What must be left of each earlier stage's score on its own evaluation set; "
        "below it this stage fails its gate. 0: no gate",
    )
    before: bool = key(
        "SFT_GEN_EVAL_BEFORE",
        "0",
        flag(),
        meaning="Also score the stage's base, before anything is trained: costs one more evaluation",
    )


@dataclass(frozen=True, kw_only=True)
class TrackingSettings:
    """Where the runs are kept: in MLflow, and where that is asked for in TensorBoard's files too."""

    experiment: str = key(
        "MLFLOW_EXPERIMENT_NAME",
        "llm-training-stage{N}",
        text("a name"),
        meaning="Experiment of the run; {N} in the default is the number of the stage",
    )
    uri: str = key(
        "MLFLOW_TRACKING_URI",
        "sqlite:///mlruns/mlflow.db",
        text("an address that MLflow takes"),
        meaning="Store of the runs; a password in it is never shown or recorded",
    )
    tensorboard: bool = key(
        "SFT_TENSORBOARD",
        "0",
        flag(),
        known_as=("SFT_REPORT_TO", "SFT_LOG_WITH"),
        meaning="Also write the metrics for TensorBoard, into `tensorboard/` of the stage's folder; needs "
        "the tensorboard package",
    )
