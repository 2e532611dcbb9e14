"""How the global batch is cut into passes and whether layers are recomputed, chosen from the memory estimate.

The loss is weighted by tokens over the whole global batch, so the cut does not show in the result beyond
rounding; it only decides what fits and how quick it is.
"""

from __future__ import annotations

import importlib.util
import itertools
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lib.model.architecture import Architecture, read_architecture
from lib.settings import InputError, StageSettings
from lib.settings.schema.training import DEFAULT_ROWS
from lib.training.sizing.devices import DeviceMemory
from lib.training.sizing.memory import MemoryEstimate, estimate_memory
from lib.training.sizing.sizes import counted, readable_bytes
from lib.training.sizing.training_shape import TrainingShape
from lib.training.sizing.world import World

ENOUGH_TOKENS = 16_384
"""Of one pass: beyond, a device is busy anyway and longer passes only pad more."""


@dataclass(frozen=True)
class BatchPlan:
    """One step: rows a pass and device, passes a step, processes; and whether layers are recomputed."""

    rows: int
    passes: int
    processes: int
    checkpointing: bool
    memory: MemoryEstimate | None
    """At the longest row that SFT_MAX_SEQ_LEN allows; None where the base's sizes are not known."""
    reasons: tuple[str, ...]
    """Why this many rows, why recomputed or not."""

    @property
    def global_batch(self) -> int:
        return self.rows * self.passes * self.processes

    def line(self) -> str:
        parts = [counted(self.rows, "row"), counted(self.passes, "pass")]
        if self.processes > 1:
            parts.append(counted(self.processes, "process"))
        batch = f"  batch {' x '.join(parts)} = {counted(self.global_batch, 'row')} a step"
        recomputed = f"gradient checkpointing {'on' if self.checkpointing else 'off'}"
        return "; ".join((batch, recomputed, *self.reasons))

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "global_batch": self.global_batch}


def plan_batch(settings: StageSettings, base: Path | None, world: World, device: DeviceMemory) -> BatchPlan:
    """Resolve SFT_PER_DEVICE_TRAIN_BS=auto, SFT_GLOBAL_BATCH_SIZE and SFT_GRADIENT_CHECKPOINTING=auto.

    `base` is the folder of the base model; None where it is not on this machine yet, as in a plan: then what
    depends on its sizes is left open. Raises InputError where the global batch cannot be cut up as asked, and
    for `auto` on a base whose sizes are not known.
    """
    per_process = _rows_per_process(settings, world)
    given = settings.training.per_device_train_bs
    architecture = read_architecture(base) if base else None
    if architecture is None:
        if base and given == "auto":
            raise _unknown_sizes(settings)
        return _unestimated(
            settings, per_process, 1 if given == "auto" else given, world, here=base is not None
        )

    cuts = _cuts(per_process, settings.data.max_seq_len) if given == "auto" else [given]
    policies = {"auto": (False, True), "0": (False,), "1": (True,)}[settings.model.gradient_checkpointing]
    estimates = {
        cut: estimate_memory(longest_pass(settings, architecture, world, *cut))
        for cut in itertools.product(cuts, policies)
    }
    # Rather fewer rows than recomputing: that costs a third of the speed, a smaller pass little.
    order = sorted(estimates, key=lambda cut: (cut[1], -cut[0]))
    fitting = [cut for cut in order if estimates[cut].training <= device.usable]
    smallest = min(order, key=lambda cut: (estimates[cut].training, cut[0]))
    rows, recomputed = chosen = fitting[0] if fitting else smallest
    return BatchPlan(
        rows,
        per_process // rows,
        world.processes,
        recomputed,
        estimates[chosen],
        _reasons(settings, chosen, estimates, device),
    )


def resolved(settings: StageSettings, batch: BatchPlan) -> StageSettings:
    """The settings with numbers in place of `auto`, as trainer, DeepSpeed, record and MLflow see them."""
    training = replace(settings.training, per_device_train_bs=batch.rows, grad_accum=batch.passes)
    checkpointing: Literal["0", "1"] = "1" if batch.checkpointing else "0"
    values = {
        "SFT_PER_DEVICE_TRAIN_BS": str(batch.rows),
        "SFT_GRAD_ACCUM": str(batch.passes),
        "SFT_GRADIENT_CHECKPOINTING": checkpointing,
    }
    return replace(
        settings,
        training=training,
        model=replace(settings.model, gradient_checkpointing=checkpointing),
        values={**settings.values, **values},
    )


def _rows_per_process(settings: StageSettings, world: World) -> int:
    """Rows of a step that one process has to do."""
    training = settings.training
    wanted, rows = training.global_batch, training.per_device_train_bs
    if wanted is None:
        return (DEFAULT_ROWS if rows == "auto" else rows) * training.grad_accum
    given = settings.origins["SFT_GRAD_ACCUM"] != "default"
    least = (1 if rows == "auto" else rows) * world.processes * (training.grad_accum if given else 1)
    if wanted % least or (given and wanted != least):
        raise _uncuttable(settings, least, world, passes_given=given)
    return wanted // world.processes


def _cuts(per_process: int, length: int) -> list[int]:
    """Rows a pass that divide a process's share, the largest useful one first."""
    most = max(ENOUGH_TOKENS // length, 1)
    return [rows for rows in range(min(per_process, most), 0, -1) if per_process % rows == 0]


def longest_pass(
    settings: StageSettings, architecture: Architecture, world: World, rows: int, recomputed: bool
) -> TrainingShape:
    """A pass whose rows are all as long as SFT_MAX_SEQ_LEN allows: known before any row is read, so that a
    run decides as its plan did."""
    length = settings.data.max_seq_len
    return training_shape(settings, architecture, world, rows=rows, length=length, checkpointing=recomputed)


def training_shape(
    settings: StageSettings,
    architecture: Architecture,
    world: World,
    *,
    rows: int,
    length: int,
    checkpointing: bool,
) -> TrainingShape:
    """What the memory of this stage is estimated from."""
    on_gpu, model = world.gpus > 0, settings.model
    fp32 = model.dtype == "fp32" or (model.dtype == "auto" and not on_gpu)
    flash = on_gpu and not fp32 and importlib.util.find_spec("flash_attn") is not None
    attention = ("flash_attention_2" if flash else "sdpa") if model.attention == "auto" else model.attention
    return TrainingShape(
        architecture=architecture,
        rank=settings.lora.rank,
        targets=settings.lora.target_modules,
        dropout=settings.lora.dropout > 0,
        rows=rows,
        length=length,
        checkpointing=checkpointing,
        weight_bytes=4 if fp32 else 2,
        on_gpu=on_gpu,
        processes=world.processes,
        sharded=world.shards(settings.training),
        attention=attention,
        optimizer=settings.training.optimizer,
        frozen_adapters=settings.stage - 1 if model.merge_mode == "stack" else 0,
        quantization=model.quantization,
        answer_rows=settings.evaluation.batch_size if settings.evaluation.samples else 0,
        answer_tokens=settings.evaluation.max_new_tokens,
    )


def _reasons(
    settings: StageSettings,
    chosen: tuple[int, bool],
    estimates: dict[tuple[int, bool], MemoryEstimate],
    device: DeviceMemory,
) -> tuple[str, ...]:
    """The arithmetic behind the choice, next to what was passed over."""
    rows, recomputed = chosen
    length, usable = settings.data.max_seq_len, readable_bytes(device.usable)
    total = estimates[chosen].total
    verdict = "of" if total <= device.usable else "[WARNING] more than the"
    needed = f"about {readable_bytes(total)} with rows of {length:,} tokens"
    reasons = [f"{needed} {verdict} {usable} ({device.arithmetic})"]
    larger = [cut for cut in estimates if cut[1] == recomputed and cut[0] > rows]
    if larger:
        passed = min(larger)
        reasons.append(f"{passed[0]} rows would take {readable_bytes(estimates[passed].total)}")
    if recomputed and settings.model.gradient_checkpointing == "auto":
        without = estimates[(rows if (rows, False) in estimates else 1, False)]
        reasons.append(f"without checkpointing {readable_bytes(without.total)}")
    return tuple(reasons)


def _unestimated(
    settings: StageSettings, per_process: int, rows: int, world: World, *, here: bool
) -> BatchPlan:
    """For a base whose sizes are not known: recomputing with a GPU, where memory is what is short."""
    recomputed = {"auto": world.gpus > 0, "0": False, "1": True}[settings.model.gradient_checkpointing]
    why = (
        "memory not estimated: the sizes of this family of models are not known"
        if here
        else "what is auto is decided when the base is on this machine"
    )
    return BatchPlan(rows, per_process // rows, world.processes, recomputed, None, (why,))


def _uncuttable(settings: StageSettings, least: int, world: World, *, passes_given: bool) -> InputError:
    training = settings.training
    wanted = training.global_batch or 0
    factors = [counted(world.processes, "process")]
    if training.per_device_train_bs != "auto":
        factors.insert(0, f"SFT_PER_DEVICE_TRAIN_BS={training.per_device_train_bs}")
    if passes_given:
        factors.insert(1, f"SFT_GRAD_ACCUM={training.grad_accum}")
    product = " x ".join(factors)
    nearest = [n for n in (wanted // least * least, (wanted // least + 1) * least) if n]
    return InputError.of(
        where=settings.origins["SFT_GLOBAL_BATCH_SIZE"],
        key="SFT_GLOBAL_BATCH_SIZE",
        value=str(wanted),
        expected=f"{least} = {product}" if passes_given else f"a multiple of {least} = {product}",
        remedy="take SFT_GRAD_ACCUM back (--set SFT_GRAD_ACCUM=): it follows from the global batch"
        if passes_given
        else f"set it to {' or '.join(map(str, nearest))}, or change SFT_PER_DEVICE_TRAIN_BS or --nproc",
    )


def _unknown_sizes(settings: StageSettings) -> InputError:
    return InputError.of(
        where=settings.origins["SFT_PER_DEVICE_TRAIN_BS"],
        key="SFT_PER_DEVICE_TRAIN_BS",
        value="auto",
        expected="a number, because the memory of this family of models cannot be estimated",
        remedy="start with SFT_PER_DEVICE_TRAIN_BS=1 and raise it while it fits",
    )
