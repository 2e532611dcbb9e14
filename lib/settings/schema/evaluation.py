"""Evaluation by generation, and where runs are tracked."""

from dataclasses import dataclass

from lib.settings.keys import key
from lib.settings.readers import LARGEST_SEED, flag, integer, local_or_named, text


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
    before: bool = key(
        "SFT_GEN_EVAL_BEFORE",
        "0",
        flag(),
        meaning="Also score the stage's base, before anything is trained: costs one more evaluation",
    )


@dataclass(frozen=True, kw_only=True)
class TrackingSettings:
    """Where MLflow keeps the runs."""

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
