"""Rules for keys that both trainers have under other names: rates, warm-up, cadence, held-out rows."""

import math
from typing import Any

from lib.importing.draft import StageDraft, number, plain, shown
from lib.importing.foreign import Section
from lib.settings.schema.training import OPTIMIZERS

_SCHEDULERS = ("linear", "cosine", "constant", "constant_with_warmup")
_SAME_OPTIMIZER = {"adamw_bnb_8bit": "adamw_8bit", "paged_adamw": "paged_adamw_32bit"}
VALIDATION = "held out from each data set apart, as distinct rows, before anything is repeated"


def optimizer(draft: StageDraft, section: Section, key: str) -> None:
    """Those that transformers names the same here and there; AdamW for others, marked."""
    given = section.take(key)
    if given is None:
        return
    name = _SAME_OPTIMIZER.get(str(given), str(given))
    if name in OPTIMIZERS:
        draft.set("SFT_OPTIM", name, shown(section.name(key), given))
    else:
        differs = f"not here; AdamW instead. Here are {', '.join(OPTIMIZERS)}. SFT_LR may need another value"
        draft.set("SFT_OPTIM", "adamw_torch", shown(section.name(key), given), differs)


def scheduler(
    draft: StageDraft,
    section: Section,
    key: str,
    *,
    default: str = "",
    lowest: Any = None,
    lowest_key: str = "",
) -> None:
    """`lowest` is the share of the peak at which a cosine ends, from `lowest_key`, where it ends above 0."""
    given = section.take(key)
    name = str(given or default or "cosine")
    source = shown(section.name(key), given) if given else f"{section.name(key)} is not given: its default"
    if lowest is not None and name in ("cosine", "cosine_with_min_lr"):
        draft.set("SFT_LR_SCHEDULER", "cosine_with_min_lr", f"{source}, with {shown(lowest_key, lowest)}")
        draft.set("SFT_MIN_LR_RATIO", lowest, shown(lowest_key, lowest))
    elif name in _SCHEDULERS:
        if given or default:
            draft.set("SFT_LR_SCHEDULER", name, source)
    else:
        differs = f"not here; cosine instead. Here are {', '.join(_SCHEDULERS)} and cosine_with_min_lr"
        draft.set("SFT_LR_SCHEDULER", "cosine", source, differs)


def lowest_share(draft: StageDraft, section: Section) -> tuple[Any, str]:
    """The end of a cosine from `lr_scheduler_kwargs`, as a share of the peak, and the key it came from."""
    extra = section.take("lr_scheduler_kwargs") or {}
    rate = number(section.take("learning_rate"))
    if isinstance(extra, dict) and set(extra) == {"min_lr_rate"}:
        return extra["min_lr_rate"], "lr_scheduler_kwargs.min_lr_rate"
    if isinstance(extra, dict) and set(extra) == {"min_lr"} and rate and number(extra["min_lr"]) is not None:
        return plain(float(extra["min_lr"]) / rate), "lr_scheduler_kwargs.min_lr"
    if extra:
        advice = (
            "only the end of a cosine can be set: SFT_MIN_LR_RATIO with SFT_LR_SCHEDULER=cosine_with_min_lr"
        )
        draft.advise(section, "lr_scheduler_kwargs", extra, advice)
    return None, ""


def warmup(draft: StageDraft, section: Section, *, default: str, about_default: str = "") -> None:
    """Here a share of the steps; a number of steps is one only where the steps are known."""
    ratio, steps = section.take("warmup_ratio"), section.take("warmup_steps")
    total = number(section.take("max_steps"))
    count = number(steps)
    if ratio is not None and not count:
        draft.set("SFT_WARMUP_RATIO", ratio, shown("warmup_ratio", ratio))
    elif count is None:
        source = "neither warmup_ratio nor warmup_steps is given: its default"
        draft.set("SFT_WARMUP_RATIO", default, source, about_default)
    elif count < 1:
        draft.set("SFT_WARMUP_RATIO", steps, shown("warmup_steps", steps))
    elif total and total >= count:
        source = f"{shown('warmup_steps', steps)} of max_steps {plain(total)}"
        draft.set("SFT_WARMUP_RATIO", plain(count / total), source)
    else:
        differs = f"a share of the steps here: set it to {steps} ÷ the steps that --plan shows"
        draft.set("SFT_WARMUP_RATIO", "0.03", shown("warmup_steps", steps), differs)


def cadence(draft: StageDraft, section: Section, what: str) -> None:
    """`what` is eval or save: every so many steps; here nothing happens by epochs."""
    ours = f"SFT_{what.upper()}_STEPS"
    steps, per_epoch = section.take(f"{what}_steps"), section.take(f"{what}s_per_epoch")
    strategy = section.take(f"{what}_strategy")
    if what == "eval" and (former := section.take("evaluation_strategy")) is not None:
        strategy = strategy or former
    total, given = number(section.take("max_steps")), number(steps)
    if given and given >= 1:
        draft.set(ours, steps, shown(f"{what}_steps", steps))
    elif given and total and total > 0:
        source = f"{shown(f'{what}_steps', steps)} of max_steps {plain(total)}"
        draft.set(ours, max(1, math.floor(given * total)), source)
    elif given:
        differs = f"steps here: set it to {steps} × the steps that --plan shows"
        draft.set(ours, 100, shown(f"{what}_steps", steps), differs)
    elif per_epoch:
        differs = f"steps here: set it to the steps of an epoch (--plan with SFT_EPOCHS=1) ÷ {per_epoch}"
        draft.set(ours, 100, shown(f"{what}s_per_epoch", per_epoch), differs)
    elif strategy is not None and str(strategy).lower() != "steps" and strategy is not False:
        differs = "steps here: set it to the steps of an epoch (--plan with SFT_EPOCHS=1 shows them)"
        if str(strategy).lower() == "no":
            differs = "it goes by steps here and is never off; SFT_VAL_RATIO=0 alone stops evaluations"
        draft.set(ours, 100, shown(f"{what}_strategy", strategy), differs)


def validation_share(draft: StageDraft, section: Section, key: str) -> None:
    """A share of the rows; that trainer also takes a number of rows, and nothing by default."""
    given = section.take(key)
    size = number(given)
    if given is not None and size is None:
        draft.set("SFT_VAL_RATIO", given, shown(key, given))
    elif not size:
        source = shown(key, given) if given is not None else f"{key} is not given: its default"
        draft.set("SFT_VAL_RATIO", 0, source)
    elif size < 1:
        draft.set("SFT_VAL_RATIO", given, shown(key, given), VALIDATION)
    else:
        differs = f"a share of the rows here: set it to {given} ÷ the rows there are; {VALIDATION}"
        draft.set("SFT_VAL_RATIO", "0.05", shown(key, given), differs)


def compute_type(draft: StageDraft, section: Section) -> None:
    """Of bf16, fp16 and fp32 the middle one is not here."""
    bf16, fp16 = section.take("bf16"), section.take("fp16")
    if bf16 is True or bf16 in ("true", "full"):
        draft.set("SFT_DTYPE", "bf16", shown("bf16", bf16))
    elif fp16 in (True, "true"):
        differs = "fp16 is not here: auto takes bf16 on a GPU that has it, else fp32"
        draft.set("SFT_DTYPE", "auto", shown("fp16", fp16), differs)
    elif bf16 is not None:
        draft.set("SFT_DTYPE", "fp32" if bf16 is False else "auto", shown("bf16", bf16))


def alpha(draft: StageDraft, section: Section, given: Any, source: str, rank: Any, rslora_key: str) -> None:
    """Scaling is alpha ÷ r here; rank-stabilised LoRA scales by alpha ÷ √r, which is alpha·√r ÷ r."""
    stabilised = section.take(rslora_key)
    size, factor = number(rank), number(given)
    if stabilised and size and factor:
        source = f"{source}, with {rslora_key}: alpha ÷ √r there is alpha·√r ÷ r here"
        draft.set("SFT_LORA_ALPHA", plain(factor * math.sqrt(size)), source)
    elif given is not None:
        draft.set("SFT_LORA_ALPHA", given, source)


def attention(draft: StageDraft, name: str, source: str) -> None:
    """Flash attention is taken where it is usable: which one computes it changes nothing that is learned."""
    known = {"flash_attention_2": "auto", "fa2": "auto", "sdpa": "sdpa", "eager": "eager", "auto": "auto"}
    if name in ("flash_attention_2", "fa2"):
        source += "; auto: flash attention where it is usable, else SDPA"
    differs = "" if name in known else "not here: flash attention where it is usable, else SDPA"
    draft.set("SFT_ATTENTION", known.get(name, "auto"), source, differs)


def checkpointing(draft: StageDraft, section: Section, key: str) -> None:
    """Recomputing activations; offloading them is not here."""
    given = section.take(key)
    if isinstance(given, bool):
        draft.set("SFT_GRADIENT_CHECKPOINTING", given, shown(key, given))
    elif given is not None:
        differs = "activations are recomputed, not offloaded"
        draft.set("SFT_GRADIENT_CHECKPOINTING", 1, shown(key, given), differs)


def deepspeed(draft: StageDraft, section: Section) -> None:
    """Our own ZeRO-2 settings instead of the file, whose batch sizes may contradict the keys."""
    given = section.take("deepspeed")
    if given is None or given is False or given == "":
        return
    differs = (
        "our own ZeRO-2 settings are used; your JSON file: SFT_DEEPSPEED_CONFIG (batch sizes in it on auto)"
    )
    text = str(given).lower()
    if isinstance(given, dict) or "2" not in text.rpartition("/")[2]:
        differs = (
            f"only ZeRO-2 and plain data parallel (0) are here: the model has to fit on each GPU. {differs}"
        )
    draft.set("SFT_ZERO_STAGE", 2, shown("deepspeed", given), differs)


def template(
    draft: StageDraft, name: str, source: str, own: tuple[str, ...], bundled: tuple[str, ...]
) -> None:
    """A template by its name there: the one that is called so here, else the tokenizer's own."""
    given = shown(source, name)
    look = "compare a few rows: --plan --show-mask 3"
    if name in bundled:
        draft.set("SFT_CHAT_TEMPLATE", name, given, f"the same name, not the same file; {look}")
    elif name in own:
        draft.not_needed[source] = "the tokenizer's own template is the default here"
    else:
        differs = f"the tokenizer's own template here, not one of that name; {look}"
        draft.set("SFT_CHAT_TEMPLATE", "", given, differs)


def best_metric(draft: StageDraft, section: Section) -> None:
    """The loss, and the metrics of generated answers, which a plug-in may have computed under these names."""
    given = section.take("metric_for_best_model")
    name = str(given).removeprefix("eval_")
    if name == "loss":
        draft.set("SFT_BEST_METRIC", "eval_loss", shown("metric_for_best_model", given))
    elif name.startswith("gen_"):
        differs = "a metric of generated answers: docs/metrics.md defines those of SFT_GEN_EVAL_TASK"
        draft.set("SFT_BEST_METRIC", name, shown("metric_for_best_model", given), differs)
    elif given is not None:
        differs = "not here; docs/metrics.md has the metrics"
        draft.set("SFT_BEST_METRIC", "eval_loss", shown("metric_for_best_model", given), differs)
