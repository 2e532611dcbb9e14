"""How long one pass of one process takes, from its operations and the weights that it reads. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lib.training.sizing.cards import Card
from lib.training.sizing.flops import pass_bytes, token_flops
from lib.training.sizing.training_shape import TrainingShape

CPU_FLOPS_PER_CORE = 8e9
"""Sustained by matrix products, assumed where nothing was measured yet."""
GPU_EFFICIENCY = 0.25
"""Of a data sheet's products, sustained over whole steps of many small experts. Assumed: `bench/gpu.py` or
a first stage measures it (docs/scaling.md)."""


@dataclass(frozen=True)
class Speed:
    """What one process computes with."""

    flops: float
    """Sustained, per second."""
    bandwidth: float
    """Bytes a second from memory; 0: reading is not counted by itself."""
    stated: str


def gpu_speed(card: Card) -> Speed:
    share = f"{GPU_EFFICIENCY:.0%} of the {card.flops / 1e12:g} TFLOP/s of one {card.name} in bf16"
    return Speed(GPU_EFFICIENCY * card.flops, card.bandwidth, share)


def cpu_speed(cores: int, processes: int) -> Speed:
    stated = f"{CPU_FLOPS_PER_CORE / 1e9:g} GFLOP/s x {cores} cores"
    shared = f" / {processes} processes" if processes > 1 else ""
    return Speed(CPU_FLOPS_PER_CORE * cores / processes, 0.0, stated + shared)


@dataclass(frozen=True)
class PassTime:
    """Seconds; computing and reading overlap, so that the longer one counts."""

    computing: float
    reading: float

    @property
    def seconds(self) -> float:
        return max(self.computing, self.reading)


def pass_time(shape: TrainingShape, tokens: float, learned: float, speed: Speed) -> PassTime:
    """Of a pass of so many tokens in rows of `shape.length`, of which a share is `learned`."""
    computing = tokens * sum(token_flops(shape, learned).values()) / speed.flops
    return PassTime(computing, pass_bytes(shape) / speed.bandwidth if speed.bandwidth else 0.0)
