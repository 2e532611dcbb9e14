"""Axolotl's YAML (0.18 and 0.19) into settings."""

from pathlib import Path
from typing import Any

from lib.data.chat.chat_template import bundled_templates
from lib.importing import training_keys as rules
from lib.importing.axolotl_datasets import ALPACA_STYLE, TEXT_STYLE, evaluation_set, training_sets
from lib.importing.axolotl_other_keys import ADVICE, NOT_NEEDED
from lib.importing.draft import StageDraft, as_list, number, plain, shown
from lib.importing.foreign import Section
from lib.importing.targets import EVERY_LINEAR, TARGET_NAMES, set_targets

_LONG_ROWS = (
    "of a longer row the prompt is cut on the left, and it is dropped only where the answer "
    "alone does not fit; "
    "there: {strategy}. --plan counts both"
)
_PACKING = "the same in both: whole rows, which do not see each other; batch sizes count sequences"


def from_axolotl(section: Section, draft: StageDraft) -> None:
    """Fills the draft; what is no supervised LoRA training becomes a problem of it."""
    _refuse_other_methods(section, draft)
    _model(section, draft)
    _lora(section, draft)
    _data(section, draft)
    _training(section, draft)
    draft.sort_out(section, NOT_NEEDED, ADVICE)


def _refuse_other_methods(section: Section, draft: StageDraft) -> None:
    adapter, reinforcement = section.take("adapter"), section.take("rl")
    if adapter not in ("lora", "qlora"):
        expected = "lora or qlora: only adapters are trained here"
        draft.refuse(section, "adapter", adapter or "(none: all weights are trained)", expected)
    if reinforcement:
        draft.refuse(section, "rl", reinforcement, "nothing: only supervised fine-tuning is done here")
    for key in ("pretraining_dataset", "reward_model", "process_reward_model"):
        if value := section.take(key):
            draft.refuse(section, key, value, "nothing: only supervised fine-tuning of rows is done here")


def _model(section: Section, draft: StageDraft) -> None:
    draft.carry("SFT_BASE_MODEL", section, "base_model")
    draft.carry("SFT_BASE_REVISION", section, "revision_of_model")
    output = str(section.take("output_dir", "./model-out")).rstrip("/")
    draft.set(
        "SFT_OUT_LORA_DIR", output, shown("output_dir", output), "the folder's name gets `_stage1` added"
    )
    rules.compute_type(draft, section)
    if section.take("float32") or section.take("fp32"):
        draft.set("SFT_DTYPE", "fp32", "float32: true")
    _quantization(section, draft)
    _attention(section, draft)
    rules.checkpointing(draft, section, "gradient_checkpointing")
    rules.deepspeed(draft, section)


def _quantization(section: Section, draft: StageDraft) -> None:
    four, extra = section.take("load_in_4bit"), section.take("bnb_config_kwargs") or {}
    eight, source = section.take("load_in_8bit"), "load_in_4bit: true"
    if four is None and section.take("adapter") == "qlora":  # it takes nothing else there
        four, source = True, "adapter: qlora"
    if four:
        double = not isinstance(extra, dict) or extra.get("bnb_4bit_use_double_quant", True)
        draft.set("SFT_QUANTIZATION", "nf4-double" if double else "nf4", source)
    elif eight:
        differs = "eight bits are not here: not quantised, which takes twice the memory; nf4 takes half"
        draft.set("SFT_QUANTIZATION", "none", "load_in_8bit: true", differs)
    if extra and not (isinstance(extra, dict) and set(extra) == {"bnb_4bit_use_double_quant"}):
        draft.advise(section, "bnb_config_kwargs", extra, "only nf4 and nf4-double: SFT_QUANTIZATION")


def _attention(section: Section, draft: StageDraft) -> None:
    flags = {
        "flash_attention": "flash_attention_2",
        "sdp_attention": "sdpa",
        "eager_attention": "eager",
        "xformers_attention": "xformers",
        "flex_attention": "flex",
        "s2_attention": "s2",
        "sage_attention": "sage",
    }
    given = section.take("attn_implementation")
    source = shown("attn_implementation", given)
    for key, name in flags.items():
        if section.take(key) and given is None:
            given, source = name, shown(key, True)
    if given is not None:
        rules.attention(draft, str(given), source)


def _lora(section: Section, draft: StageDraft) -> None:
    draft.carry("SFT_LORA_R", section, "lora_r")
    given = section.take("lora_alpha")
    source = shown("lora_alpha", given)
    rules.alpha(draft, section, given, source, section.take("lora_r"), "peft_use_rslora")
    draft.carry("SFT_LORA_DROPOUT", section, "lora_dropout", default="0.0")
    named, parameters = section.take("lora_target_modules"), section.take("lora_target_parameters")
    if section.take("lora_target_linear"):
        set_targets(draft, "all-linear", "lora_target_linear: true", EVERY_LINEAR)
        return
    if isinstance(named, str) and not named.replace("_", "").replace("-", "").isalnum():
        draft.advise(section, "lora_target_modules", named, f"a pattern: {TARGET_NAMES}")
        named = None
    wanted, stacked = as_list(named), as_list(parameters)
    for parameter in stacked:
        leaf = str(parameter).rpartition(".")[2]
        wanted += ["gate_proj", "up_proj"] if leaf == "gate_up_proj" else [leaf]
    if wanted:
        source = shown("lora_target_modules", named) if named else ""
        source += "; " * bool(named and stacked) + (
            shown("lora_target_parameters", stacked) if stacked else ""
        )
        set_targets(draft, list(dict.fromkeys(map(str, wanted))), source)


def _data(section: Section, draft: StageDraft) -> None:
    styles, local_template = training_sets(section, draft)
    _chat_template(section, draft, styles, local_template)
    strategy = str(section.take("excess_length_strategy", "drop"))
    differs = _LONG_ROWS.format(strategy=strategy)
    draft.carry("SFT_MAX_SEQ_LEN", section, "sequence_len", default=512, differs=differs)
    packing = section.take("sample_packing")
    if packing:
        draft.set("SFT_PACKING", 1, f"{shown('sample_packing', packing)}; {_PACKING}")
    test = evaluation_set(section, draft)
    if test:
        draft.set("SFT_VAL_RATIO", 0, "test_datasets: nothing is held out of the training rows")
        section.take("val_set_size")
    else:
        rules.validation_share(draft, section, "val_set_size")
    draft.set("SFT_MASK_COT", 0, "all answers are learned, whole, as there")


def _chat_template(section: Section, draft: StageDraft, styles: set[str], local: Any) -> None:
    given, jinja = section.take("chat_template"), section.take("chat_template_jinja")
    name, source = (local, "datasets[].chat_template") if local else (given, "chat_template")
    if jinja:
        if Path(str(jinja)).suffix in (".jinja", ".jinja2", ".j2"):
            draft.set("SFT_CHAT_TEMPLATE", jinja, shown("chat_template_jinja", jinja))
        else:
            draft.advise(
                section, "chat_template_jinja", jinja, "save it as a file and set SFT_CHAT_TEMPLATE to that"
            )
    elif styles - {TEXT_STYLE} == {ALPACA_STYLE}:
        differs = (
            "without the sentence before it, and the input stands under the instruction. All data sets "
            "of a stage "
            "share one template; a chat model learns better in its own: delete the line for that"
        )
        draft.set("SFT_CHAT_TEMPLATE", "alpaca", "datasets[].type: alpaca", differs)
        if name:
            draft.not_needed[source] = "rows of type alpaca do not use it there either"
    elif name:
        rules.template(draft, str(name), source, ("tokenizer_default",), bundled_templates())
    chosen = draft.settings.get("SFT_CHAT_TEMPLATE")
    if ALPACA_STYLE in styles and (chosen is None or chosen.text != "alpaca"):
        advice = "all data sets of a stage share one template: these rows are written in it too"
        draft.advise(section, "datasets[].type", "alpaca", advice)


def _training(section: Section, draft: StageDraft) -> None:
    draft.carry("SFT_EPOCHS", section, "num_epochs")
    draft.carry("SFT_MAX_STEPS", section, "max_steps")
    draft.carry("SFT_LR", section, "learning_rate")
    micro = section.take("micro_batch_size", 1)
    draft.carry("SFT_PER_DEVICE_TRAIN_BS", section, "micro_batch_size", default=1)
    whole, size = number(section.take("batch_size")), number(micro)
    if whole and size and section.take("gradient_accumulation_steps") is None:
        source = f"{shown('batch_size', plain(whole))} ÷ micro_batch_size {micro}"
        draft.set("SFT_GRAD_ACCUM", max(1, int(whole // size)), source)
    draft.carry("SFT_GRAD_ACCUM", section, "gradient_accumulation_steps", default=1)
    draft.carry("SFT_PER_DEVICE_EVAL_BS", section, "eval_batch_size")
    lowest, lowest_key = rules.lowest_share(draft, section)
    if (ratio := section.take("cosine_min_lr_ratio")) is not None:
        lowest, lowest_key = ratio, "cosine_min_lr_ratio"
    rules.scheduler(draft, section, "lr_scheduler", lowest=lowest, lowest_key=lowest_key)
    about = "there 3 % of the steps, but at most 100 of them; here 3 % in any case"
    rules.warmup(draft, section, default="0.03", about_default=about)
    rules.optimizer(draft, section, "optimizer")
    for ours, theirs in (
        ("SFT_WEIGHT_DECAY", "weight_decay"), ("SFT_MAX_GRAD_NORM", "max_grad_norm"),
        ("SFT_NEFTUNE_NOISE_ALPHA", "neftune_noise_alpha"), ("SFT_GROUP_BY_LENGTH", "group_by_length"),
        ("SFT_LOGGING_STEPS", "logging_steps"), ("SFT_SAVE_TOTAL_LIMIT", "save_total_limit"),
        ("SFT_EARLY_STOPPING_PATIENCE", "early_stopping_patience"), ("SFT_SEED", "seed"),
        ("MLFLOW_TRACKING_URI", "mlflow_tracking_uri"), ("MLFLOW_EXPERIMENT_NAME", "mlflow_experiment_name"),
        ("SFT_TENSORBOARD", "use_tensorboard"), ("SFT_DDP_TIMEOUT", "ddp_timeout"),
        ("SFT_DATASET_NUM_PROC", "dataset_num_proc"), ("SFT_DATASET_NUM_PROC", "dataset_processes"),
    ):  # fmt: skip
        draft.carry(ours, section, theirs)
    rules.cadence(draft, section, "eval")
    rules.cadence(draft, section, "save")
    rules.best_metric(draft, section)
