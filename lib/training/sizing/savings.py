"""What to lower when memory is short, and what each step saves by the estimate. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from lib.model.architecture import Architecture
from lib.settings import StageSettings
from lib.training.sizing.batch import longest_pass
from lib.training.sizing.memory import estimate_memory
from lib.training.sizing.sizes import readable_bytes
from lib.training.sizing.training_shape import TrainingShape
from lib.training.sizing.world import World

LEAST_SAVING = 0.02
"""Of the whole: what saves less is not worth a line."""


class Saving(NamedTuple):
    """`keys` as they would be set, what they cost, and the estimate of one process with them, in bytes."""

    keys: str
    price: str
    bytes: int

    def line(self, now: int, usable: int) -> str:
        fits = "" if self.bytes > usable or now <= usable else f", fits in {readable_bytes(usable)}"
        return (
            f"{self.keys} ({self.price}): about {readable_bytes(self.bytes)} instead of "
            f"{readable_bytes(now)}{fits}"
        )


def memory_savings(settings: StageSettings, architecture: Architecture, world: World) -> list[Saving]:
    """Single changes that lower the estimate, the harmless ones first; the last does them all. The batch of
    `settings` is resolved."""
    recomputed = settings.model.gradient_checkpointing == "1"
    shape = longest_pass(settings, architecture, world, settings.training.micro_batch, recomputed)
    now = estimate_memory(shape).total
    found, everything = [], shape
    for keys, price, changes in _changes(settings, shape):
        saving = Saving(keys, price, estimate_memory(replace(shape, **changes)).total)
        if saving.bytes < (1 - LEAST_SAVING) * now:
            found.append(saving)
            everything = replace(everything, **changes)
    if len(found) > 1:
        found.append(Saving("all of these", "together", estimate_memory(everything).total))
    return found


def savings_lines(
    settings: StageSettings, architecture: Architecture | None, world: World, usable: int
) -> list[str]:
    """The same as text; empty where the base's sizes are not known or nothing is left to lower."""
    if architecture is None:
        return []
    recomputed = settings.model.gradient_checkpointing == "1"
    shape = longest_pass(settings, architecture, world, settings.training.micro_batch, recomputed)
    now = estimate_memory(shape).total
    return [saving.line(now, usable) for saving in memory_savings(settings, architecture, world)]


def _changes(settings: StageSettings, shape: TrainingShape) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(keys, price, what they change of the shape)."""
    training = settings.training
    if shape.rows > 1:
        rows = max(n for n in range(1, shape.rows) if shape.rows % n == 0)
        passes = training.grad_accum * shape.rows // rows
        same = "" if training.global_batch else f" with SFT_GRAD_ACCUM={passes}"
        yield f"SFT_PER_DEVICE_TRAIN_BS={rows}{same}", "the same batch in more passes", {"rows": rows}
    if not shape.checkpointing:
        yield "SFT_GRADIENT_CHECKPOINTING=1", "a third more time", {"checkpointing": True}
    if shape.answer_rows > 1:
        rows = shape.answer_rows // 2
        yield f"SFT_GEN_EVAL_BATCH_SIZE={rows}", "answers take longer", {"answer_rows": rows}
    if shape.answer_rows and not shape.on_gpu:
        yield "SFT_GEN_EVAL_SAMPLES=0", "no scores by generation", {"answer_rows": 0}
    if shape.length > 256:
        length = shape.length // 2
        yield f"SFT_MAX_SEQ_LEN={length}", "longer rows are cut or dropped", {"length": length}
    if shape.rank > 8:
        yield f"SFT_LORA_R={shape.rank // 2}", "a smaller adapter", {"rank": shape.rank // 2}
    if shape.quantization == "none" and settings.model.merge_mode == "merge":
        yield "SFT_QUANTIZATION=nf4", "the frozen base in four bits", {"quantization": "nf4"}
