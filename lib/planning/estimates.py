"""What a stage will cost: steps, tokens, memory, disk and time, each with its arithmetic. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lib.data.order.order import TrainingOrder
from lib.data.order.schedule import Schedule
from lib.training.durations import readable_duration
from lib.training.sizing.devices import DeviceMemory
from lib.training.sizing.flops import pass_bytes, token_flops
from lib.training.sizing.memory import estimate_memory
from lib.training.sizing.memory_text import memory_lines
from lib.training.sizing.sizes import counted, readable_bytes
from lib.training.sizing.speed import PassTime, Speed, pass_time
from lib.training.sizing.training_shape import TrainingShape


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
    learned: float = 1.0
    """Share of the tokens that carry a loss."""
    full_rows: bool = False
    """The rows are not here: every one is taken to be as long as it may be."""
    row_length: float = 0.0
    """Mean tokens of a row, packed or not."""


@dataclass(frozen=True)
class Estimate:
    """One number with its unit and how it came about."""

    value: float
    text: str
    arithmetic: str
    lines: tuple[str, ...] = ()
    """The arithmetic in full, line by line, where a line is too short for it."""


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


def memory(shape: TrainingShape, device: DeviceMemory) -> Estimate:
    """Peak bytes of one process while it trains."""
    needed = estimate_memory(shape)
    recomputed = " and recomputed layers" if shape.checkpointing else ""
    rows = f"{shape.rows} row{'s' * (shape.rows != 1)} of {shape.length:,} tokens{recomputed}"
    return Estimate(
        needed.total,
        readable_bytes(needed.total),
        f"{rows}: {needed.arithmetic}",
        memory_lines(shape, needed, device),
    )


def measured_seconds(load: Workload, tokens_per_second: float) -> Estimate:
    """Training time at the speed that a stage on this base had here."""
    value = trained_tokens(load) / tokens_per_second
    return Estimate(value, readable_duration(value), f"measured {tokens_per_second:,.0f} tokens/s")


def seconds(shape: TrainingShape, load: Workload, speed: Speed) -> Estimate:
    """Training time from FLOPs; `shape` is one pass of rows of the mean length."""
    passes = planned_steps(load) * load.accumulation
    tokens = trained_tokens(load) / max(passes * load.processes, 1)
    taken = pass_time(shape, tokens, load.learned, speed)
    value = passes * taken.seconds
    at_most = "at most: every row taken as long as SFT_MAX_SEQ_LEN; " if load.full_rows else ""
    return Estimate(
        value,
        readable_duration(value),
        f"{at_most}assumed speed: no stage on this base was measured yet",
        (*_pass_lines(shape, load, tokens, taken, speed), _total_line(load, tokens, passes, taken)),
    )


def _pass_lines(
    shape: TrainingShape, load: Workload, tokens: float, taken: PassTime, speed: Speed
) -> list[str]:
    flops = token_flops(shape, load.learned)
    parts = " + ".join(f"{name} {count / 1e9:.3g}" for name, count in flops.items())
    lines = [
        f"{sum(flops.values()) / 1e9:,.3g} GFLOP a token = {parts}",
        f"{tokens:,.0f} tokens a pass and process / {speed.flops:.3g} FLOP/s ({speed.stated}) = "
        f"{_milliseconds(taken.computing)}",
    ]
    if taken.reading:
        hidden = "more tokens a pass would cost nothing" if taken.reading > taken.computing else "hidden"
        read = f"{readable_bytes(pass_bytes(shape))} of weights read a pass / {speed.bandwidth / 1e12:g} TB/s"
        lines.append(f"{read} = {_milliseconds(taken.reading)}: {hidden}")
    return lines


def _total_line(load: Workload, tokens: float, passes: int, taken: PassTime) -> str:
    each = tokens / taken.seconds if taken.seconds else 0.0
    where = f" in each of {load.processes} processes" if load.processes > 1 else ""
    return (
        f"{passes:,} passes ({planned_steps(load):,} steps x {load.accumulation}) at {each:,.0f} tokens/s"
        f"{where}; evaluations and checkpoints come on top"
    )


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms"


def disk(base: int, trainable: int, *, checkpoints: int, free: int | None) -> Estimate:
    """Bytes that the stage writes: the merged base (0 where nothing is merged, or all is stacked), and per
    checkpoint adapter and optimizer state. `free` bytes are there now; None: on another machine."""
    saved = trainable * (2 + 12 * checkpoints)
    there = ""
    if free is not None:
        there = f"; {readable_bytes(free)} free" + ("" if base + saved < free else ": NOT ENOUGH")
    return Estimate(
        base + saved,
        readable_bytes(base + saved),
        f"merged base {readable_bytes(base)} + adapter and {counted(checkpoints, 'checkpoint')} "
        f"{readable_bytes(saved)}{there}",
    )
