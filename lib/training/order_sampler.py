"""A planned order of rows as torch's data loader takes it."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import Sampler

from lib.data.order.order import TrainingOrder


class OrderSampler(Sampler[int]):
    """Positions of the rows, epoch by epoch, the same in every process; the trainer sets the epoch."""

    def __init__(self, order: TrainingOrder) -> None:
        self.order = order
        self.epoch = 0

    def __len__(self) -> int:
        return self.order.rows

    def __iter__(self) -> Iterator[int]:
        yield from self.order.epoch(self.epoch)
        self.epoch += 1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
