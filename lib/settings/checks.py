"""Settings that are fine alone and wrong, or without effect, together."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from lib.settings.schema import StageSettings
from lib.settings.schema.data import NO_CACHE
from lib.settings.schema.model import ALL_LINEAR


class Contradiction(NamedTuple):
    """The keys involved, the one to blame first; what is expected of it; how to mend it."""

    keys: tuple[str, ...]
    expected: str
    remedy: str


def contradictions(settings: StageSettings) -> Iterator[Contradiction]:
    """What must stop the run."""
    yield from _data_contradictions(settings)
    yield from _model_contradictions(settings)
    yield from _training_contradictions(settings)
    yield from _evaluation_contradictions(settings)


def remarks(settings: StageSettings) -> Iterator[str]:
    """What the user gave, and what will do nothing; said, not refused."""
    data, training = settings.data, settings.training
    if data.upsample_rules and not data.use_upsampling:
        yield _without_effect(settings, "SFT_UPSAMPLE_RULES", "SFT_USE_UPSAMPLING=0")
    yield from _remarks_on_the_mix(settings)
    near = {"near_duplicate", "near_evaluation"} & {*settings.audit.checks}
    if not near and _given(settings, "SFT_NEAR_DUPLICATE_THRESHOLD"):
        yield _without_effect(
            settings, "SFT_NEAR_DUPLICATE_THRESHOLD", f"SFT_AUDIT_CHECKS={','.join(settings.audit.checks)}"
        )
    if (
        training.lr_scheduler == "constant"
        and training.warmup_ratio > 0
        and _given(settings, "SFT_WARMUP_RATIO")
    ):
        yield _without_effect(settings, "SFT_WARMUP_RATIO", "SFT_LR_SCHEDULER=constant")
    for (name, split), times in Counter((entry.id, entry.split) for entry in data.mix).items():
        if times > 1:
            yield f"[WARNING] Data set {name} (split {split}) is named {times} times in the mix"
    if _nothing_to_generate_from(settings) and not _given(settings, "SFT_GEN_EVAL_SAMPLES"):
        yield "No evaluation by generation: no rows are held out and SFT_GEN_EVAL_DATASET_ID is empty"


def _remarks_on_the_mix(settings: StageSettings) -> Iterator[str]:
    data = settings.data
    if data.order == "shuffled" and _given(settings, "SFT_ORDER_PACING"):
        yield _without_effect(settings, "SFT_ORDER_PACING", "SFT_ORDER=shuffled")
    if data.order != "complexity" and _given(settings, "SFT_ORDER_LEVELS"):
        yield _without_effect(settings, "SFT_ORDER_LEVELS", f"SFT_ORDER={data.order}")
    if data.mix_weights != "share" and all(entry.weight is None for entry in data.mix):
        yield _without_effect(
            settings, "SFT_MIX_WEIGHTS", "data sets without weights: all rows are drawn once"
        )


def _data_contradictions(settings: StageSettings) -> Iterator[Contradiction]:
    if settings.data.use_upsampling and not settings.data.upsample_rules:
        yield Contradiction(
            ("SFT_USE_UPSAMPLING", "SFT_UPSAMPLE_RULES"),
            "rules to apply: SFT_UPSAMPLE_RULES is empty",
            """Add SFT_UPSAMPLE_RULES='{"label": 2.0}', or set SFT_USE_UPSAMPLING=0.""",
        )
    if settings.data.mix_total_size is not None and settings.data.mix_weights != "share":
        yield Contradiction(
            ("SFT_DATASET_MIX_TOTAL_SIZE", "SFT_MIX_WEIGHTS"),
            f"empty with SFT_MIX_WEIGHTS={settings.data.mix_weights}, whose weights make the size",
            "Delete SFT_DATASET_MIX_TOTAL_SIZE, or set SFT_MIX_WEIGHTS=share.",
        )
    if settings.data.streaming and settings.data.cache_dir == NO_CACHE:
        yield Contradiction(
            ("SFT_DATASET_STREAMING", "SFT_CACHE_DIR"),
            f"0 with SFT_CACHE_DIR={NO_CACHE}: rows that arrive one by one have to be kept somewhere",
            "Delete SFT_CACHE_DIR or name a folder, or set SFT_DATASET_STREAMING=0.",
        )
    if settings.data.packing and settings.data.order != "shuffled":
        yield Contradiction(
            ("SFT_ORDER", "SFT_PACKING"),
            "shuffled with SFT_PACKING=1, whose sequences hold rows of all kinds",
            "Delete SFT_ORDER, or set SFT_PACKING=0.",
        )
    if settings.training.group_by_length and settings.data.order != "shuffled":
        yield Contradiction(
            ("SFT_GROUP_BY_LENGTH", "SFT_ORDER"),
            f"0 with SFT_ORDER={settings.data.order}, which is an order of its own",
            "Delete SFT_GROUP_BY_LENGTH, or set SFT_ORDER=shuffled.",
        )
    if settings.data.packing and settings.training.group_by_length:
        yield Contradiction(
            ("SFT_GROUP_BY_LENGTH", "SFT_PACKING"),
            "0 with SFT_PACKING=1, whose sequences are all about as long",
            "Delete SFT_GROUP_BY_LENGTH, or set SFT_PACKING=0.",
        )


def _model_contradictions(settings: StageSettings) -> Iterator[Contradiction]:
    if ALL_LINEAR in settings.lora.target_modules and len(settings.lora.target_modules) > 1:
        yield Contradiction(
            ("SFT_LORA_TARGET_MODULES",),
            f"{ALL_LINEAR} alone, or names of modules",
            f"Set SFT_LORA_TARGET_MODULES={ALL_LINEAR}, or delete {ALL_LINEAR} from the list.",
        )
    if settings.model.merge_mode == "stack" and settings.model.quantization != "none":
        yield Contradiction(
            ("SFT_MERGE_MODE", "SFT_QUANTIZATION"),
            "merge: frozen factors beside quantised weights are not computed",
            "Delete SFT_MERGE_MODE: earlier stages are merged into the unquantised weights, which are then "
            "quantised; or set SFT_QUANTIZATION=none.",
        )


def _training_contradictions(settings: StageSettings) -> Iterator[Contradiction]:
    training = settings.training
    if training.min_lr_ratio > 0 and training.lr_scheduler != "cosine_with_min_lr":
        yield Contradiction(
            ("SFT_MIN_LR_RATIO", "SFT_LR_SCHEDULER"),
            f"0 with SFT_LR_SCHEDULER={training.lr_scheduler}, which has no lower end",
            "Set SFT_LR_SCHEDULER=cosine_with_min_lr, or delete SFT_MIN_LR_RATIO.",
        )
    if (
        training.per_device_train_bs == "auto"
        and training.global_batch
        and _given(settings, "SFT_GRAD_ACCUM")
    ):
        yield Contradiction(
            ("SFT_GRAD_ACCUM", "SFT_GLOBAL_BATCH_SIZE", "SFT_PER_DEVICE_TRAIN_BS"),
            "not to be set: with SFT_PER_DEVICE_TRAIN_BS=auto it follows from SFT_GLOBAL_BATCH_SIZE",
            "Delete SFT_GRAD_ACCUM (--set SFT_GRAD_ACCUM= takes it back), or SFT_GLOBAL_BATCH_SIZE.",
        )
    if training.zero_stage == "0" and training.deepspeed_config is not None:
        yield Contradiction(
            ("SFT_ZERO_STAGE", "SFT_DEEPSPEED_CONFIG"),
            "2 with SFT_DEEPSPEED_CONFIG: without DeepSpeed its configuration would do nothing",
            "Delete SFT_ZERO_STAGE, or SFT_DEEPSPEED_CONFIG.",
        )
    if training.early_stopping_patience == 0:
        return
    if settings.data.val_ratio == 0 and not settings.evaluation.dataset_id:
        yield Contradiction(
            ("SFT_EARLY_STOPPING_PATIENCE", "SFT_VAL_RATIO"),
            "0 without validation rows, since there is nothing that it could watch",
            "Set SFT_VAL_RATIO above 0, for example 0.05, or SFT_EARLY_STOPPING_PATIENCE=0.",
        )
    if training.save_steps % training.eval_steps:
        # Going back to the best checkpoint needs an evaluation at every checkpoint; transformers insists too.
        above = (training.save_steps // training.eval_steps + 1) * training.eval_steps
        yield Contradiction(
            ("SFT_SAVE_STEPS", "SFT_EVAL_STEPS", "SFT_EARLY_STOPPING_PATIENCE"),
            f"a multiple of SFT_EVAL_STEPS ({training.eval_steps}) while early stopping is on",
            f"Set SFT_SAVE_STEPS={above}, or SFT_EVAL_STEPS={training.save_steps}.",
        )


def _evaluation_contradictions(settings: StageSettings) -> Iterator[Contradiction]:
    if _nothing_to_generate_from(settings) and _given(settings, "SFT_GEN_EVAL_SAMPLES"):
        yield Contradiction(
            ("SFT_GEN_EVAL_SAMPLES", "SFT_VAL_RATIO", "SFT_GEN_EVAL_DATASET_ID"),
            "0, because there are no prompts: no rows are held out and no data set is named",
            "Set SFT_VAL_RATIO above 0 or name SFT_GEN_EVAL_DATASET_ID, or set SFT_GEN_EVAL_SAMPLES=0.",
        )
    evaluation, metric = settings.evaluation, settings.training.best_metric
    if metric != "eval_loss" and (evaluation.every != 1 or not evaluation.samples):
        yield Contradiction(
            ("SFT_BEST_METRIC", "SFT_GEN_EVAL_EVERY", "SFT_GEN_EVAL_SAMPLES"),
            "eval_loss, because answers are not generated at every evaluation",
            "Set SFT_GEN_EVAL_EVERY=1 and SFT_GEN_EVAL_SAMPLES above 0, or SFT_BEST_METRIC=eval_loss.",
        )
    if evaluation.style and evaluation.task in {"structured", "extraction"}:
        yield Contradiction(
            ("SFT_GEN_EVAL_STYLE", "SFT_GEN_EVAL_TASK"),
            f"empty with SFT_GEN_EVAL_TASK={evaluation.task}, which has no style",
            "Set SFT_GEN_EVAL_TASK=chat, or delete SFT_GEN_EVAL_STYLE.",
        )


def _nothing_to_generate_from(settings: StageSettings) -> bool:
    evaluation = settings.evaluation
    return evaluation.samples > 0 and not evaluation.dataset_id and settings.data.val_ratio == 0


def _given(settings: StageSettings, key: str) -> bool:
    return settings.origins[key] != "default"


def _without_effect(settings: StageSettings, key: str, reason: str) -> str:
    return f"{settings.origins[key]}: {key} has no effect with {reason}"
