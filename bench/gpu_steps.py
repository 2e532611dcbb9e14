"""Whole training steps of bench/gpu.py: packed rows through a Qwen3-MoE of random weights under LoRA."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bench.gpu_sizes import GPU_SHARE, RANK, Sizes
from bench.timing import median_and_spread, seconds_of
from lib.settings import LoraSettings
from lib.training.sizing.memory import TrainingShape, estimate_memory


def training_steps(sizes: Sizes, device: Any, _clock: Any) -> Iterator[dict[str, Any]]:
    """Whole steps on a few layers, then on as many as fit: all 48 on a GPU of 80 GB and more."""
    import torch

    total = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 2**33
    for layers in dict.fromkeys((sizes.few_layers, fitting_layers(sizes, device, int(GPU_SHARE * total)))):
        if not layers:
            yield {"all layers": f"not even one fits in {total / 1e9:.0f} GB"}
            continue
        yield from steps_on(replace(sizes, model=replace(sizes.model, layers=layers)), device, total)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def shape_of(sizes: Sizes, device: Any, length: int, *, checkpointing: bool) -> TrainingShape:
    on_gpu = device.type == "cuda"
    flash = importlib.util.find_spec("flash_attn") is not None and on_gpu
    return TrainingShape(
        architecture=sizes.model, rank=RANK, targets=LoraSettings().target_modules, dropout=False,
        rows=max(sizes.step_tokens // length, 1), length=length, checkpointing=checkpointing,
        weight_bytes=2 if on_gpu else 4, on_gpu=on_gpu, processes=1, sharded=True,
        attention="flash_attention_2" if flash else "sdpa",
    )  # fmt: skip


def fitting_layers(sizes: Sizes, device: Any, usable: int) -> int:
    """As many as the estimate allows for the longest rows, recomputed."""
    longest = max(sizes.step_lengths)
    for layers in range(sizes.model.layers, 0, -1):
        shallower = replace(sizes, model=replace(sizes.model, layers=layers))
        if estimate_memory(shape_of(shallower, device, longest, checkpointing=True)).total <= usable:
            return layers
    return 0


def steps_on(sizes: Sizes, device: Any, total: int) -> Iterator[dict[str, Any]]:
    """Tokens per second and peak for every length, recomputing and not where that fits."""
    import torch

    from bench.random_moe import LoraStep, packed_rows, random_moe
    from lib.model.packed_attention import use_attention_by_row

    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    attention = shape_of(sizes, device, sizes.step_lengths[0], checkpointing=True).attention
    model = random_moe(sizes.model, device, dtype, attention)
    if attention == "sdpa":
        use_attention_by_row(model)  # as training does with packed rows
    step = LoraStep(model, RANK)
    for checkpointing in (True, False):
        step.recompute(checkpointing)
        for length in sizes.step_lengths:
            shape = shape_of(sizes, device, length, checkpointing=checkpointing)
            estimated = estimate_memory(shape).total
            how = f"{sizes.model.layers} layers, {shape.rows} x {length}{', recomputed' * checkpointing}"
            if estimated > GPU_SHARE * total:
                yield {how: f"not run: estimated at {estimated / 1e9:.1f} GB"}
                continue
            batch = packed_rows(shape.rows, length, sizes.model.vocabulary, device)
            yield {how: measured_steps(step, batch, device, estimated, rounds=min(sizes.rounds, 5))}


def measured_steps(step: Any, batch: Any, device: Any, estimated: int, *, rounds: int) -> dict[str, Any]:
    import torch

    step(*batch)  # kernels are chosen and compiled
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = [seconds_of(lambda: step(*batch), device) for _ in range(rounds)]
    tokens = batch[0].numel()
    result: dict[str, Any] = {"tokens_per_second": median_and_spread([tokens / s for s in seconds], 0)}
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        result |= {"peak_bytes": peak, "estimated_bytes": estimated, "error": round(estimated / peak - 1, 3)}
    return result
