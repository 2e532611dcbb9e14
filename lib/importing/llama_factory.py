"""LLaMA-Factory's training YAML (0.9.5) into settings."""

from pathlib import Path

from lib.data.chat.chat_template import bundled_templates
from lib.importing import training_keys as rules
from lib.importing.draft import StageDraft, number, plain, shown
from lib.importing.foreign import Section
from lib.importing.llama_factory_datasets import evaluation_set, training_sets
from lib.importing.llama_factory_other_keys import ADVICE, NOT_NEEDED
from lib.importing.targets import EVERY_LINEAR, set_targets

_LONG_ROWS = (
    "of a longer row the prompt is cut on the left, and it is dropped where the answer alone "
    "does not fit. There question "
    "and answer are both cut at their ends, so that an answer may lose its end. --plan counts "
    "what is cut and dropped"
)
_LAST_TURN = (
    "only the last answer, as with mask_history; but where it holds one of SFT_OUTPUT_MARKERS, "
    "only what follows"
)


def from_llama_factory(section: Section, draft: StageDraft, config: Path) -> None:
    """Fills the draft; what is no supervised LoRA training becomes a problem of it."""
    if (stage := section.take("stage", "sft")) != "sft":
        draft.refuse(section, "stage", stage, "sft: only supervised fine-tuning is done here")
    if (method := section.take("finetuning_type", "lora")) != "lora":
        draft.refuse(section, "finetuning_type", method, "lora: only adapters are trained here")
    _model(section, draft)
    _lora(section, draft)
    _data(section, draft, config)
    _training(section, draft)
    draft.sort_out(section, NOT_NEEDED, ADVICE)


def _model(section: Section, draft: StageDraft) -> None:
    draft.carry("SFT_BASE_MODEL", section, "model_name_or_path")
    draft.carry("SFT_BASE_REVISION", section, "model_revision")
    output = section.take("output_dir")
    if output is not None:
        differs = "the folder's name gets `_stage1` added"
        draft.set("SFT_OUT_LORA_DIR", str(output).rstrip("/"), shown("output_dir", output), differs)
    rules.compute_type(draft, section)
    _quantization(section, draft)
    flash = section.take("flash_attn")
    if flash is not None:
        name = "eager" if flash in ("disabled", False) else str(flash)
        rules.attention(draft, name, shown("flash_attn", flash))
    if (off := section.take("disable_gradient_checkpointing")) is not None:
        draft.set("SFT_GRADIENT_CHECKPOINTING", not off, shown("disable_gradient_checkpointing", off))
    rules.checkpointing(draft, section, "gradient_checkpointing")
    rules.deepspeed(draft, section)


def _quantization(section: Section, draft: StageDraft) -> None:
    bits, kind = section.take("quantization_bit"), section.take("quantization_type", "nf4")
    double = section.take("double_quantization", True)
    if (method := section.take("quantization_method", "bnb")) not in ("bnb", "bitsandbytes"):
        draft.advise(section, "quantization_method", method, "bitsandbytes quantises here, in four bits")
    if bits is None:
        return
    source = shown("quantization_bit", bits)
    if number(bits) != 4:
        differs = "only four bits are here: not quantised, which takes more memory; nf4 takes less"
        draft.set("SFT_QUANTIZATION", "none", source, differs)
    else:
        differs = f"nf4, not {kind}" if kind != "nf4" else ""
        source += "" if double else ", double_quantization: false"
        draft.set("SFT_QUANTIZATION", "nf4-double" if double else "nf4", source, differs)


def _lora(section: Section, draft: StageDraft) -> None:
    rank = section.take("lora_rank", 8)
    draft.carry("SFT_LORA_R", section, "lora_rank", default=8)
    given, size = section.take("lora_alpha"), number(rank)
    source = shown("lora_alpha", given)
    if given is None and size:
        given, source = plain(2 * size), "lora_alpha is not given: twice the rank, its default"
    rules.alpha(draft, section, given, source, rank, "use_rslora")
    draft.carry("SFT_LORA_DROPOUT", section, "lora_dropout", default="0.0")
    target = section.take("lora_target")
    source = shown("lora_target", target) if target else "lora_target is not given: all, its default"
    names = target if isinstance(target, list) else str(target or "all").split(",")
    names = [str(name).strip() for name in names]
    if names == ["all"]:
        set_targets(draft, "all-linear", source, EVERY_LINEAR)
    else:
        set_targets(draft, names, source)


def _data(section: Section, draft: StageDraft, config: Path) -> None:
    training_sets(section, draft, config)
    draft.carry("SFT_MAX_SEQ_LEN", section, "cutoff_len", default=2048, differs=_LONG_ROWS)
    name = section.take("template")
    if name is not None:
        rules.template(draft, str(name), "template", (), bundled_templates())
    neat, packing = section.take("neat_packing"), section.take("packing")
    if neat:
        draft.set("SFT_PACKING", 1, "neat_packing: true; the same: whole rows, which do not see each other")
    elif packing:
        differs = "rows of a sequence do not see each other here; there they do without neat_packing"
        draft.set("SFT_PACKING", 1, "packing: true", differs)
    if section.take("mask_history"):
        draft.set("SFT_MASK_COT", 1, "mask_history: true", _LAST_TURN)
    else:
        draft.set("SFT_MASK_COT", 0, "all answers are learned, whole, as there")
    if evaluation_set(section, draft, config):
        draft.set("SFT_VAL_RATIO", 0, "eval_dataset: nothing is held out of the training rows")
        section.take("val_size")
    else:
        rules.validation_share(draft, section, "val_size")


def _training(section: Section, draft: StageDraft) -> None:
    for ours, theirs, default in (
        ("SFT_EPOCHS", "num_train_epochs", "3"),
        ("SFT_LR", "learning_rate", "5e-5"),
        ("SFT_PER_DEVICE_TRAIN_BS", "per_device_train_batch_size", "8"),
        ("SFT_GRAD_ACCUM", "gradient_accumulation_steps", "1"),
        ("SFT_MAX_STEPS", "max_steps", None),
        ("SFT_PER_DEVICE_EVAL_BS", "per_device_eval_batch_size", None),
        ("SFT_WEIGHT_DECAY", "weight_decay", None),
        ("SFT_MAX_GRAD_NORM", "max_grad_norm", None),
        ("SFT_NEFTUNE_NOISE_ALPHA", "neftune_noise_alpha", None),
        ("SFT_GROUP_BY_LENGTH", "group_by_length", None),
        ("SFT_LOGGING_STEPS", "logging_steps", None),
        ("SFT_SAVE_TOTAL_LIMIT", "save_total_limit", None),
        ("SFT_SEED", "seed", None),
        ("SFT_EARLY_STOPPING_PATIENCE", "early_stopping_steps", None),
        ("SFT_DATASET_NUM_PROC", "preprocessing_num_workers", None),
        ("SFT_DDP_TIMEOUT", "ddp_timeout", None),
    ):
        draft.carry(ours, section, theirs, default=default)
    lowest, lowest_key = rules.lowest_share(draft, section)
    rules.scheduler(
        draft, section, "lr_scheduler_type", default="linear", lowest=lowest, lowest_key=lowest_key
    )
    rules.warmup(draft, section, default="0")
    rules.optimizer(draft, section, "optim")
    rules.cadence(draft, section, "eval")
    rules.cadence(draft, section, "save")
    rules.best_metric(draft, section)
    _trackers(section, draft)


def _trackers(section: Section, draft: StageDraft) -> None:
    given = section.take("report_to")
    trackers = {str(name) for name in (given if isinstance(given, list) else [given])} - {"None", "none"}
    if trackers & {"tensorboard", "all"}:
        draft.set("SFT_TENSORBOARD", 1, shown("report_to", given))
    if trackers - {"tensorboard", "mlflow"}:
        draft.advise(
            section, "report_to", given, "MLflow keeps the runs; SFT_TENSORBOARD=1 adds TensorBoard's files"
        )
