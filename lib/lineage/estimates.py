"""What a stage will cost: steps, tokens, memory, disk and time, each with its arithmetic. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lib.data.order.order import TrainingOrder
from lib.data.order.schedule import Schedule
from lib.training.durations import readable_duration
from lib.training.sizing.memory import TrainingShape, estimate_memory
from lib.training.sizing.sizes import readable_bytes

# Sustained matrix throughput assumed where nothing was measured yet, FLOP/s.
CPU_FLOPS_PER_CORE = 8e9
GPU_FLOPS = 150e12


@dataclass(frozen=True)
class Workload:
    """The numbers that estimates are made from."""

    rows: int
    """What `batch` counts: rows, or packed sequences of them."""
    tokens: int
    """Of all rows."""
    batch: int
    accumulation: int
    processes: int
    epochs: float
    max_steps: int


@dataclass(frozen=True)
class Estimate:
    """One number with its unit and how it came about."""

    value: float
    text: str
    arithmetic: str


def planned_steps(load: Workload) -> int:
    """Optimizer steps of the whole stage."""
    return _schedule(load).steps


def trained_tokens(load: Workload) -> int:
    """Tokens that pass through the model over all steps (the last batch of an epoch may be smaller)."""
    if not load.rows:
        return 0
    schedule = _schedule(load)
    return round(load.tokens * schedule.steps / schedule.steps_per_epoch)


def _schedule(load: Workload) -> Schedule:
    order = TrainingOrder(load.rows, seed=0)
    return Schedule(order, load.batch, load.accumulation, load.processes, load.epochs, load.max_steps)


def memory(shape: TrainingShape) -> Estimate:
    """Peak bytes of one process while it trains."""
    needed = estimate_memory(shape)
    recomputed = " and recomputed layers" if shape.checkpointing else ""
    rows = f"{shape.rows} row{'s' * (shape.rows != 1)} of {shape.length:,} tokens{recomputed}"
    return Estimate(needed.total, readable_bytes(needed.total), f"{rows}: {needed.arithmetic}")


def seconds(
    active_parameters: int,
    tokens: int,
    *,
    measured_tokens_per_second: float | None,
    cores: int,
    gpus: int,
    processes: int,
) -> Estimate:
    """Training time: from a measured speed of this base where there is one, else from FLOPs.

    A frozen base costs 2 FLOP per active weight and token forward and 2 for the gradient of its
    inputs; no gradient of its weights is formed.
    """
    if measured_tokens_per_second:
        value = tokens / measured_tokens_per_second
        return Estimate(
            value, readable_duration(value), f"measured {measured_tokens_per_second:,.0f} tokens/s"
        )
    device = GPU_FLOPS * processes if gpus else CPU_FLOPS_PER_CORE * cores
    value = 4 * active_parameters * tokens / device
    return Estimate(
        value,
        readable_duration(value),
        f"4 FLOP x {active_parameters:,} active weights x {tokens:,} tokens / {device:.1e} FLOP/s "
        "(assumed: no stage on this base was measured yet)",
    )


def disk(base: int, trainable: int, *, checkpoints: int, free: int) -> Estimate:
    """Bytes that the stage writes: the merged base (0 where nothing is merged, or all is stacked), and per
    checkpoint adapter and optimizer state. `free` bytes are there now."""
    saved = trainable * (2 + 12 * checkpoints)
    enough = "" if base + saved < free else ": NOT ENOUGH"
    return Estimate(
        base + saved,
        readable_bytes(base + saved),
        f"merged base {readable_bytes(base)} + adapter and {checkpoints} checkpoints "
        f"{readable_bytes(saved)}; {readable_bytes(free)} free{enough}",
    )
