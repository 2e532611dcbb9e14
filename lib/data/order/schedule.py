"""Which rows the steps of a stage train on: the batches of the trainer as arithmetic."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from typing import NamedTuple

from lib.data.order.draws import even_counts
from lib.data.order.order import TrainingOrder
from lib.data.order.packing import Pack
from lib.settings.schema import TrainingSettings

MOST_EPOCHS_FOLLOWED = 10_000
"""One by one, for the rows that fill up their batches: more than any run has, and still under a second."""


class ForwardPass(NamedTuple):
    """One forward pass of a step, on one process."""

    process: int
    number: int
    """Which of the process's passes of that step, from 0."""
    rows: tuple[int, ...]
    """Positions of the rows; those of a sequence one after another."""


@dataclass(frozen=True)
class Schedule:
    """Epochs of one order, cut into batches and steps as transformers and accelerate cut them.

    A step takes `batch * processes * accumulation` rows of the epoch's order; the last step of an epoch takes
    what is left. Several processes all get full batches: the epoch is filled up with its first rows
    (accelerate 1.15, `BatchSamplerShard` with `even_batches`).
    """

    order: TrainingOrder
    batch: int
    accumulation: int
    processes: int
    epochs: float
    max_steps: int = -1
    packs: tuple[Pack, ...] = ()
    """Where rows are packed: the sequences that the order goes through and `batch` counts. What is said here
    of rows is then said of sequences, but for `times`."""

    @classmethod
    def of(
        cls, order: TrainingOrder, training: TrainingSettings, processes: int, packs: tuple[Pack, ...] = ()
    ) -> "Schedule":
        return cls(
            order,
            training.micro_batch,
            training.grad_accum,
            processes,
            training.epochs,
            training.max_steps,
            packs,
        )

    @property
    def steps_per_epoch(self) -> int:
        batches = math.ceil(self.order.rows / (self.batch * self.processes))
        return max(math.ceil(batches / self.accumulation), 1)

    @property
    def steps(self) -> int:
        """Optimizer steps, as transformers counts them (`Trainer.set_initial_training_values`, 5.23).

        A fractional number of epochs ends with ⌈epochs · steps per epoch⌉ steps: in the middle of an epoch.
        """
        if self.max_steps > 0:
            return self.max_steps
        return math.ceil(self.epochs * self.steps_per_epoch)

    def epoch(self, number: int) -> list[int]:
        """Positions of the rows of one epoch in the order of training, with those that fill it up."""
        order = self.order.epoch(number)
        return order + list(islice(cycle(order), self._filling))

    def times(self, steps: int | None = None) -> Counter[int]:
        """How often the row at each position is trained on in so many steps; None: in all of them. Of very
        many epochs the rows that fill up the batches are counted as if they came evenly."""
        whole, rest = divmod(self.steps if steps is None else steps, self.steps_per_epoch)
        counts: Counter[int] = Counter(dict.fromkeys(range(self.order.rows), whole) if whole else {})
        if self._filling and whole <= MOST_EPOCHS_FOLLOWED:
            for number in range(whole):
                counts.update(islice(cycle(self.order.epoch(number)), self._filling))
        elif self._filling:
            counts.update(dict(enumerate(even_counts(whole * self._filling, self.order.rows))))
        if rest:
            counts.update(self.epoch(whole)[: rest * self.batch * self.processes * self.accumulation])
        if not self.packs:
            return counts
        return Counter({row: times for pack, times in counts.items() for row in self.packs[pack]})

    def passes(self, step: int) -> list[ForwardPass]:
        """What the step of this number, from 1, trains on: its passes in the order of the rows."""
        number, within = divmod(step - 1, self.steps_per_epoch)
        rows = self.batch * self.processes * self.accumulation
        taken = self.epoch(number)[within * rows : (within + 1) * rows]
        batches = [taken[first : first + self.batch] for first in range(0, len(taken), self.batch)]
        return [
            ForwardPass(i % self.processes, i // self.processes, tuple(self._rows_of(batch)))
            for i, batch in enumerate(batches)
        ]

    def _rows_of(self, batch: list[int]) -> Iterator[int]:
        for place in batch:
            yield from self.packs[place] if self.packs else (place,)

    @property
    def _filling(self) -> int:
        """Rows that an epoch lacks for full batches in every process; one process trains on a short batch."""
        return -self.order.rows % (self.batch * self.processes) if self.processes > 1 else 0
