"""The memory estimate line by line, each with the numbers that it was made from."""

from __future__ import annotations

from lib.training.sizing.devices import DeviceMemory
from lib.training.sizing.memory import (
    DEEPSPEED,
    HEAP_WASTE,
    LIBRARIES,
    MOMENTS,
    MemoryEstimate,
    backward_bytes,
    loss_bytes,
)
from lib.training.sizing.sizes import readable_bytes
from lib.training.sizing.training_shape import TrainingShape

NAMES_WIDTH, SIZES_WIDTH = 26, 9


def memory_lines(shape: TrainingShape, estimate: MemoryEstimate, device: DeviceMemory) -> tuple[str, ...]:
    """One line a part that is not 0, the reserve and what is left last."""
    said = _arithmetic(shape, estimate)
    lines = [_line(name, size, said[name]) for name, size in estimate.parts.items() if size]
    free = device.usable - estimate.total
    left = f"{readable_bytes(abs(free))} {'stays free' if free >= 0 else 'is missing'}"
    return (
        *lines,
        _line("together", estimate.total, f"of {readable_bytes(device.usable)}: {left}"),
        *([_line("reserve", device.total - device.usable, device.reserve)] if device.total else []),
    )


def _arithmetic(shape: TrainingShape, estimate: MemoryEstimate) -> dict[str, str]:
    """By the names of `MemoryEstimate.parts`."""
    trainable = max(shape.trainable, 1)
    count = f"{shape.trainable:,}"
    sharded = f" / {shape.processes} processes" if shape.sharded and shape.processes > 1 else ""
    moments = MOMENTS.get(shape.optimizer, 8)
    each = f"(4 + 4 + {moments})" if shape.sharded else f"{moments}"
    split = "weights, gradients and moments in fp32" if shape.sharded else "moments"
    return {
        "weights": _weights(shape),
        "factors of earlier stages": f"of {shape.frozen_adapters}, and room beside them for the new ones",
        "adapter": f"{count} x {estimate.adapter // trainable} bytes",
        "gradients": f"{count} x {estimate.gradients // trainable} bytes",
        "optimizer": f"{count} x {each} bytes{sharded}: {split}",
        "buckets": "gradients on their way to the other processes" if shape.processes > 1 else "of ZeRO-2",
        "activations": _activations(shape, estimate),
        "logits and workspace": f"the larger of the loss (a chunk of logits, its softmax, the states), "
        f"{readable_bytes(loss_bytes(shape))}, and the backward of one layer, "
        f"{readable_bytes(backward_bytes(shape))}",
        "generating answers": _answers(shape),
        "libraries": f"torch and others {readable_bytes(LIBRARIES)}"
        + (f", DeepSpeed {readable_bytes(DEEPSPEED)}" * shape.sharded),
        "heap fragmentation": f"{HEAP_WASTE:g} of all activations and workspace of a pass: measured",
    }


def _answers(shape: TrainingShape) -> str:
    copy = (
        "" if shape.on_gpu or shape.quantization != "none" else "a copy of the weights with the adapter, and "
    )
    return (
        f"{copy}keys and values of {shape.answer_rows} prompts of {shape.prompt_tokens:,} tokens and answers "
        f"of {shape.answer_tokens:,} (SFT_GEN_EVAL_BATCH_SIZE), less what only training needs"
    )


def _weights(shape: TrainingShape) -> str:
    whole = f"; all of them in each of {shape.processes} processes: only what is trained is shared out"
    loaded = f"x {shape.weight_bytes} bytes" if shape.quantization == "none" else f"in {shape.quantization}"
    return f"{shape.architecture.parameters:,} {loaded}{whole if shape.processes > 1 else ''}"


def _activations(shape: TrainingShape, estimate: MemoryEstimate) -> str:
    a, tokens = shape.architecture, shape.tokens
    attention = shape.attention.replace("flash_attention_2", "flash attention")
    if not shape.checkpointing:
        each = estimate.activations // (tokens * a.layers)
        return f"{tokens:,} tokens x {a.layers} layers x {each:,} bytes ({attention})"
    inputs = a.layers * tokens * a.hidden * shape.weight_bytes
    return (
        f"{tokens:,} tokens x {a.layers} layers x {a.hidden * shape.weight_bytes:,} bytes, and one layer "
        f"whole: {readable_bytes(estimate.activations - inputs)} ({attention}; layers are recomputed)"
    )


def _line(name: str, size: int, said: str) -> str:
    return f"{name:<{NAMES_WIDTH}}{readable_bytes(size):>{SIZES_WIDTH}}  {said}"
