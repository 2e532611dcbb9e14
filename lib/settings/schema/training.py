"""The optimisation: length, rates, batches, cadence."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lib.settings.json_values import object_file
from lib.settings.keys import key
from lib.settings.readers import choice, flag, integer, metric_name, number, optional, or_auto

DEFAULT_ROWS = 2
OPTIMIZERS = (
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_8bit",
    "paged_adamw_8bit",
    "paged_adamw_32bit",
    "adafactor",
    "sgd",
)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How long, how fast and in what steps it trains. A step is one update of the weights."""

    epochs: float = key(
        "SFT_EPOCHS",
        "1",
        number(above=0, maximum=1_000_000),
        unit="epochs",
        known_as=("SFT_NUM_EPOCHS", "SFT_NUM_TRAIN_EPOCHS"),
        meaning="Passes over the mixed rows; SFT_MAX_STEPS, when set, decides instead",
    )
    max_steps: int = key(
        "SFT_MAX_STEPS",
        "-1",
        integer(minimum=1, off=-1),
        unit="steps",
        meaning="Steps in total; -1: by epochs",
    )
    per_device_train_bs: int | Literal["auto"] = key(
        "SFT_PER_DEVICE_TRAIN_BS",
        str(DEFAULT_ROWS),
        or_auto(integer(minimum=1)),
        unit="rows",
        known_as=("SFT_BATCH_SIZE", "SFT_TRAIN_BATCH_SIZE", "SFT_PER_DEVICE_TRAIN_BATCH_SIZE"),
        meaning="Rows per device and forward pass, with SFT_PACKING=1 sequences full of rows; auto: as many "
        "as the memory estimate allows, with SFT_GRAD_ACCUM following, so that the global batch stays as it "
        "is (docs/scaling.md)",
    )
    group_by_length: bool = key(
        "SFT_GROUP_BY_LENGTH",
        "0",
        flag(),
        meaning="Rows of about the same length in one batch; saves padding where batches are padded",
    )
    per_device_eval_bs: int = key(
        "SFT_PER_DEVICE_EVAL_BS",
        "2",
        integer(minimum=1),
        unit="rows",
        known_as=("SFT_EVAL_BATCH_SIZE", "SFT_PER_DEVICE_EVAL_BATCH_SIZE"),
        meaning="The same when the validation loss is computed",
    )
    grad_accum: int = key(
        "SFT_GRAD_ACCUM",
        "8",
        integer(minimum=1),
        unit="passes per step",
        known_as=("SFT_GRADIENT_ACCUMULATION_STEPS",),
        meaning="Global batch = this × SFT_PER_DEVICE_TRAIN_BS (2 for auto) × processes, where "
        "SFT_GLOBAL_BATCH_SIZE is empty; else this follows from it",
    )
    global_batch: int | None = key(
        "SFT_GLOBAL_BATCH_SIZE",
        "",
        optional(integer(minimum=1)),
        unit="rows per step",
        known_as=("SFT_GLOBAL_TRAIN_BATCH_SIZE", "SFT_TOTAL_BATCH_SIZE"),
        meaning="Rows of one step over all processes, however many there are; empty: by SFT_GRAD_ACCUM",
    )
    lr: float = key(
        "SFT_LR",
        "1e-4",
        number(above=0),
        unit="per step",
        known_as=("SFT_LEARNING_RATE",),
        meaning="Peak learning rate",
    )
    lr_scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup", "cosine_with_min_lr"] = key(
        "SFT_LR_SCHEDULER",
        "cosine",
        choice("linear", "cosine", "constant", "constant_with_warmup", "cosine_with_min_lr"),
        known_as=("SFT_LR_SCHEDULER_TYPE",),
        meaning="Course of the learning rate after warm-up",
    )
    min_lr_ratio: float = key(
        "SFT_MIN_LR_RATIO",
        "0.0",
        number(minimum=0, maximum=1),
        unit="share of SFT_LR",
        meaning="Where cosine_with_min_lr ends",
    )
    warmup_ratio: float = key(
        "SFT_WARMUP_RATIO",
        "0.03",
        number(minimum=0, maximum=1),
        unit="share of steps",
        meaning="Linear warm-up from 0 to SFT_LR",
    )
    weight_decay: float = key(
        "SFT_WEIGHT_DECAY",
        "0.0",
        number(minimum=0),
        unit="per unit of learning rate",
        meaning="Decoupled weight decay on the adapter",
    )
    max_grad_norm: float = key(
        "SFT_MAX_GRAD_NORM",
        "1.0",
        number(minimum=0),
        unit="L2 norm",
        meaning="Gradients are clipped to this norm; 0: not clipped",
    )
    optimizer: str = key(
        "SFT_OPTIM",
        "adamw_torch",
        choice(*OPTIMIZERS),
        known_as=("SFT_OPTIMIZER",),
        meaning="Optimizer, as transformers names it; the 8-bit and paged ones need bitsandbytes",
    )
    logging_steps: int = key(
        "SFT_LOGGING_STEPS",
        "10",
        integer(minimum=1),
        unit="steps",
        meaning="How often training metrics are logged",
    )
    eval_steps: int = key(
        "SFT_EVAL_STEPS",
        "100",
        integer(minimum=1),
        unit="steps",
        meaning="How often the validation loss is computed",
    )
    save_steps: int = key(
        "SFT_SAVE_STEPS", "100", integer(minimum=1), unit="steps", meaning="How often a checkpoint is saved"
    )
    save_total_limit: int = key(
        "SFT_SAVE_TOTAL_LIMIT",
        "3",
        integer(minimum=1),
        unit="checkpoints",
        meaning="How many checkpoints are kept: the best by SFT_BEST_METRIC (the newest, where nothing is "
        "evaluated); the last one is kept besides, to go on from",
    )
    early_stopping_patience: int = key(
        "SFT_EARLY_STOPPING_PATIENCE",
        "0",
        integer(minimum=0),
        unit="evaluations",
        meaning="Stop after this many evaluations without improvement; 0: off",
    )
    best_metric: str = key(
        "SFT_BEST_METRIC",
        "eval_loss",
        metric_name("eval_loss, heldout_loss or a gen_* metric (docs/metrics.md)"),
        meaning="What early stopping and the choice of the best checkpoint look at",
    )
    neftune_noise_alpha: float = key(
        "SFT_NEFTUNE_NOISE_ALPHA",
        "0",
        number(minimum=0),
        meaning="Strength of NEFTune noise on the embeddings while training; 0: none",
    )
    on_nan: Literal["stop", "skip"] = key(
        "SFT_ON_NAN",
        "stop",
        choice("stop", "skip"),
        meaning="A step whose loss or gradient is not a number, infinite or exactly 0. stop: the run ends "
        "before that step changes the weights; skip: the step is left out. Its rows are in bad_batches.jsonl."
        " An evaluation whose loss is not a number or infinite: likewise; left out, it is never the best",
    )
    on_spike: Literal["warn", "skip", "stop", "off"] = key(
        "SFT_ON_SPIKE",
        "warn",
        choice("warn", "skip", "stop", "off"),
        meaning="A step whose loss or gradient norm is far above those before it. warn: trained on and "
        "said, its rows recorded; skip: left out; stop: the run ends before it; off: not looked for",
    )
    spike_deviations: float = key(
        "SFT_SPIKE_DEVIATIONS",
        "10",
        number(above=0),
        unit="robust standard deviations",
        meaning="How far above the median of the last 64 steps is a spike (docs/reliability.md has the rule)",
    )
    stall_seconds: float = key(
        "SFT_STALL_SECONDS",
        "60",
        number(minimum=0, maximum=1_000_000),
        unit="seconds",
        meaning="When nothing moved for so long (no phase, pass or generated token ended), the stacks of all "
        "processes are written to stalls.txt and what keeps them is said; 0: never (docs/reliability.md)",
    )
    on_stall: Literal["continue", "stop"] = key(
        "SFT_ON_STALL",
        "continue",
        choice("continue", "stop"),
        meaning="What comes then. continue: said, and again at twice the time; stop: the run ends with 1, "
        "a compiler's silence only after ten times the limit",
    )
    ddp_timeout: int = key(
        "SFT_DDP_TIMEOUT",
        "7200",
        integer(minimum=1),
        unit="seconds",
        meaning="How long one process waits for the others in a collective before the run ends",
    )
    zero_stage: Literal["2", "0"] = key(
        "SFT_ZERO_STAGE",
        "2",
        choice("2", "0"),
        meaning="2: DeepSpeed shards gradients and optimizer over the processes; 0: plain data parallel, "
        "without DeepSpeed (docs/scaling.md says when)",
    )
    deepspeed_config: Path | None = key(  # noqa: RUF009 (key() is a dataclass field)
        "SFT_DEEPSPEED_CONFIG",
        "",
        optional(object_file("a JSON file with an object")),
        meaning="Your own DeepSpeed configuration; empty: ours, ZeRO-2",
    )

    @property
    def micro_batch(self) -> int:
        """Rows per device and forward pass, once `auto` has become a number."""
        assert self.per_device_train_bs != "auto", "the batch has not been planned yet"
        return self.per_device_train_bs
