"""The probe of a stage: its base loaded, its adapter attached, one micro-batch forward and backward.

torch, and all that needs it, is imported inside.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lib.data.chat.masks import EncodingRules
from lib.preflight.subject import Subject
from lib.preflight.verdict import Verdict
from lib.settings import Problem
from lib.training.durations import readable_duration

if TYPE_CHECKING:
    from lib.data.chat.chat_format import ChatFormat
    from lib.data.chat.encoded import EncodedRow
    from lib.model.base import StageBase
    from lib.training.probe import Gradient, Probe

CANDIDATES = 64
"""Rows among which the longest are taken: the probe is to see what a full pass is like."""
WHY = {
    "frozen": "is attached but frozen",
    "none": "is attached, but no gradient reaches it: the model's forward does not use it",
    "zero": "gets a gradient of zero everywhere",
    "not finite": "gets a gradient that is not finite",
}


@dataclass(frozen=True)
class Probed:
    """What the probe of one stage came to. `seconds` are by phase, `projected` of the whole training."""

    verdicts: tuple[Verdict, ...]
    census: dict[str, Any]
    seconds: dict[str, float]
    projected: float | None


def probe_stage(subject: Subject) -> Probed:
    """Load, attach, try. Raises InputError for what a run would refuse while it does the same, and whatever
    the libraries raise."""
    from lib.data.chat.model_chat import chat_of
    from lib.model.adapter import attach_lora
    from lib.model.base import choose_compute, load_tokenizer
    from lib.model.stage_base import load_stage_base
    from lib.model.targets import find_targets
    from lib.training.batches import choose_batch_form
    from lib.training.probe import probe
    from lib.training.quiet import quiet_libraries

    quiet_libraries()
    settings, seconds = subject.settings, {}
    compute, tokenizer = choose_compute(settings.model), load_tokenizer(settings.model)
    chat = chat_of(tokenizer, settings.data.chat_template)
    rows = probe_rows(subject, chat)
    started = time.monotonic()
    base, aside = probed_base(subject)
    model, base = load_stage_base(base, settings.model, compute, on_gpu=subject.world.gpus > 0)
    seconds["load"] = time.monotonic() - started
    targets = find_targets(model, settings.lora.target_modules)
    form = choose_batch_form(model, rows, packing=settings.data.packing)
    started = time.monotonic()
    adapted, census = attach_lora(model, targets, settings.lora, seed=settings.seed)
    seconds["attach"] = time.monotonic() - started
    if settings.model.gradient_checkpointing == "1":
        adapted.gradient_checkpointing_enable({"use_reentrant": False})
    batch = form.collator(tokenizer)([_example(row) for row in rows])
    found = probe(adapted, batch, rows=len(rows), dtype=compute.dtype)
    seconds |= found.seconds
    projected = projected_seconds(subject, found)
    verdicts = [
        Verdict.warning("base", aside) if aside else Verdict.ok("base", base.line().strip()),
        Verdict.ok("adapter", census.line().strip()),
        *(Verdict.warning("adapter", notice.removeprefix("[WARNING] ")) for notice in census.notices),
        *judged(found, rows, chat.stop_ids),
        timing(seconds, projected, found),
    ]
    return Probed(tuple(verdicts), census.to_json(), seconds, projected)


def probe_rows(subject: Subject, chat: ChatFormat) -> list[EncodedRow]:
    """The longest of the first rows, as many as a pass takes. A run drops what is not usable; where nothing
    else is there the probe takes it, and finds it."""
    settings, planned = subject.settings, subject.planned
    mixture = planned.mixture if planned else None
    assert mixture is not None, "no row is on this machine: there is nothing to probe with"
    drawn = list({example.row_id: example for example in mixture.train}.values())[:CANDIDATES]
    encoded = chat.encode(drawn, EncodingRules.of(settings.data)).rows
    usable = [row for row in encoded if row.usable] or list(encoded)
    longest = sorted(usable, key=lambda row: -len(row.input_ids))
    return longest[: settings.training.micro_batch]


def _example(row: EncodedRow) -> dict[str, Any]:
    """As the training data set holds it."""
    return {"input_ids": row.input_ids, "labels": row.targets(), "seq_lengths": [len(row.input_ids)]}


def probed_base(subject: Subject) -> tuple[StageBase, str]:
    """What is loaded, and what of the earlier stages is left out of it. Nothing is written: where the merged
    base is not built yet, the stage-0 base stands in, on which the same is trainable."""
    from lib.model.base import StageBase
    from lib.model.merge import find_merged
    from lib.model.stage_base import obtain_stage_base

    settings, chain = subject.settings, subject.stage.chain
    model, merged = settings.model, settings.merged_base_dir
    earlier = sorted({*(parent.stage for parent in chain.parents), *subject.runs_before})
    if chain.adapters and not subject.runs_before and model.merge_mode == "stack":
        return obtain_stage_base(model, chain.adapters, merged, key=chain.key, mode="stack"), ""
    if chain.adapters and chain.key and find_merged(merged).key == chain.key and not subject.runs_before:
        there = StageBase(str(merged), "", model.base_model, True, True, 0.0, quantization=model.quantization)
        return there, ""
    untouched = obtain_stage_base(model, [], merged, key="", mode=model.merge_mode)
    numbers = ", ".join(map(str, earlier))
    left_out = f"tried on the stage-0 base: the adapters of stage {numbers} are not merged yet"
    return untouched, left_out if earlier else ""


def judged(found: Probe, rows: Sequence[EncodedRow], end_ids: Sequence[int]) -> Iterator[Verdict]:
    """The verdicts on what the probe saw."""
    if not found.learned:
        yield Verdict.failed("learned tokens", _nothing_learned(found))
        return
    share = found.learned / found.tokens
    yield Verdict.ok("learned tokens", f"{found.learned:,} of {found.tokens:,} ({share:.0%}) in the probe")
    yield end_learned(rows, end_ids)
    yield from gradients(found.gradients)
    before, after = found.losses
    if found.logits_change > 0:
        moved = (
            f"moves the logits by up to {found.logits_change:.2g}, the loss from {before:.4f} to {after:.4f}"
        )
        yield Verdict.ok("a step", moved)
    else:
        yield Verdict.failed("a step", _unmoved(found))


def end_learned(rows: Sequence[EncodedRow], end_ids: Sequence[int]) -> Verdict:
    """Whether the token at which an answer ends is among those that are learned."""
    learning = [row for row in rows if set(end_ids) & {t for t in row.targets() if t >= 0}]
    if len(learning) == len(rows):
        return Verdict.ok("end token learned", f"in every row of the probe ({len(rows)})")
    problem = Problem(
        where="chat template",
        key="SFT_CHAT_TEMPLATE",
        value=f"{len(rows) - len(learning)} of {len(rows)} rows of the probe learn no end token",
        expected="an end token after every answer; without it the model never stops",
        remedy="set SFT_CHAT_TEMPLATE to a template that closes answers with a token at which this tokenizer "
        "ends, and leave that token inside the answer",
    )
    return Verdict.failed("end token learned", problem)


def gradients(found: Sequence[Gradient]) -> Iterator[Verdict]:
    """One verdict a kind where all is well, and one for every declared target that is not reached."""
    missed: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)
    for gradient in found:
        if gradient.reach != "ok":
            missed[gradient.kind, gradient.target, gradient.reach].append(gradient.layer)
    for (kind, target, reach), layers in missed.items():
        yield Verdict.failed(f"gradient: {kind}", _unreached(target, reach, layers))
    for kind in dict.fromkeys(gradient.kind for gradient in found):
        reached = [gradient for gradient in found if gradient.kind == kind and gradient.reach == "ok"]
        if reached:
            counts = Counter(gradient.target for gradient in reached)
            named = ", ".join(f"{target} in {count}" for target, count in counts.items())
            norms = [gradient.norm for gradient in reached]
            yield Verdict.ok(
                f"gradient: {kind}", f"{named} layers; norm {min(norms):.1e} to {max(norms):.1e}"
            )


def _unreached(target: str, reach: str, layers: Sequence[str]) -> Problem:
    more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
    return Problem(
        where=f"{layers[0]}{more}",
        key="SFT_LORA_TARGET_MODULES",
        value=target,
        expected=f"a finite gradient that is not zero; this target {WHY[reach]}",
        remedy="set SFT_DTYPE=fp32 and lower SFT_LR, and look at the rows"
        if reach == "not finite"
        else f"take {target} out of SFT_LORA_TARGET_MODULES if this model does not use it; otherwise it "
        "would stay untrained without a word",
    )


def _nothing_learned(found: Probe) -> Problem:
    return Problem(
        where="the masks",
        key="SFT_MASK_COT",
        value=f"0 of {found.tokens:,} tokens of the probe are learned",
        expected="tokens of the answers that carry loss",
        remedy="see which tokens are learned with --plan --show-mask 3; check SFT_OUTPUT_MARKERS, "
        "SFT_MASK_COT and SFT_MAX_SEQ_LEN",
    )


def _unmoved(found: Probe) -> Problem:
    return Problem(
        where="the probe",
        value=f"the logits change by {found.logits_change:g}",
        expected="other logits after an optimizer step: the adapter does not act on the model",
        remedy="set SFT_DTYPE=fp32; check SFT_LORA_ALPHA and SFT_LORA_TARGET_MODULES",
    )


def projected_seconds(subject: Subject, found: Probe) -> float | None:
    """Of the whole training by the passes of the probe; evaluations and checkpoints come on top."""
    plan = subject.plan
    if plan is None or not plan.tokens or not found.warm_seconds:
        return None
    passes = plan.tokens / found.tokens / subject.world.processes * found.warm_seconds
    return passes + (plan.steps or 0) * found.seconds["first optimizer step"]


def timing(seconds: dict[str, float], projected: float | None, found: Probe) -> Verdict:
    phases = ", ".join(f"{phase} {took:.2f} s" for phase, took in seconds.items())
    if projected is None:
        return Verdict.ok("time", phases)
    speed = found.tokens / found.warm_seconds
    whole = f"training about {readable_duration(projected)} at {speed:,.0f} tokens/s, evaluations not counted"
    return Verdict.ok("time", f"{phases}; {whole}")
