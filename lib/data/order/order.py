"""The order in which the rows of a stage are trained, epoch by epoch. The same on every machine, for any
number of processes, and known to a plan without torch.

The pacing functions are those of competence-based curriculum learning (Platanios et al., 2019, arXiv
1903.09848): after a part t of an epoch, rows are drawn at random from the easiest part c(t) of those that are
left, with every row once an epoch.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lib.data.reading.labels import Label

Pacing = Literal["linear", "root", "step"]
STARTING_PART = 0.1
"""c(0) of linear and root: the easiest tenth."""
STEPS = 4
"""step opens a quarter at a time."""

PACING: Mapping[str, Callable[[float], float]] = {
    "linear": lambda t: STARTING_PART + (1 - STARTING_PART) * t,
    "root": lambda t: math.sqrt(STARTING_PART**2 + (1 - STARTING_PART**2) * t),
    "step": lambda t: (math.floor(STEPS * t) + 1) / STEPS,
}


@dataclass(frozen=True)
class TrainingOrder:
    """Positions 0…rows-1 in the order of training; each epoch has an order of its own."""

    rows: int
    seed: int
    difficulty: tuple[float, ...] | None = None
    """One per row; None: shuffled."""
    pacing: Pacing = "linear"
    lengths: tuple[int, ...] | None = None
    """One per row, where rows of about the same length are to stand together; None: nothing of the kind."""
    together: int = 1
    """How many such rows stand together: those of a step."""

    def epoch(self, number: int) -> list[int]:
        """Every position once, for the epoch of this number, from 0."""
        if self.lengths is not None:
            return grouped(self.lengths, self.together, self.seed + number)
        if self.difficulty is None:
            return permutation(self.rows, self.seed + number)
        return paced(self.difficulty, self.pacing, self.seed + number)


def permutation(rows: int, seed: int) -> list[int]:
    """The order in which torch's RandomSampler goes through `rows` rows for this seed, without torch: stages
    trained before orders could be planned keep theirs.

    torch.randperm draws 32 bits a swap from a Mersenne Twister (aten/src/ATen/native/TensorFactories.cpp).
    """
    bits = _mersenne_twister(seed)
    order = list(range(rows))
    for i in range(rows - 1):
        j = i + bits(32) % (rows - i)
        order[i], order[j] = order[j], order[i]
    return order


def paced(difficulty: Sequence[float], pacing: Pacing, seed: int) -> list[int]:
    """From easy to hard: each place takes a random one of the rows that are open then and not yet taken.

    At place i of n the ⌈n·c(i/n)⌉ easiest rows are open. Rows of equal difficulty stand in random order.
    """
    chance = random.Random(seed)
    count = len(difficulty)
    by_difficulty = sorted(permutation(count, seed), key=lambda i: difficulty[i])
    opened = PACING[pacing]
    open_rows: list[int] = []
    order, taken = [], 0
    for place in range(count):
        until = max(min(math.ceil(count * opened(place / count)), count), place + 1)
        open_rows += by_difficulty[taken:until]
        taken = max(taken, until)
        chosen = chance.randrange(len(open_rows))
        open_rows[chosen], open_rows[-1] = open_rows[-1], open_rows[chosen]
        order.append(open_rows.pop())
    return order


def grouped(lengths: Sequence[int], together: int, seed: int) -> list[int]:
    """The order of transformers' LengthGroupedSampler: a permutation cut into stretches of up to 50 times
    `together` rows, each sorted from long to short, the longest row of all first.

    Its own is drawn from the global generator, which differs between processes once they have trained.
    """
    order = permutation(len(lengths), seed)
    stretch = (min(len(order) // (4 * together), 50) or 1) * together
    stretches = [
        sorted(order[first : first + stretch], key=lambda i: -lengths[i])
        for first in range(0, len(order), stretch)
    ]
    longest = max(stretches, key=lambda rows: lengths[rows[0]])
    stretches[0][0], longest[0] = longest[0], stretches[0][0]
    return [row for rows in stretches for row in rows]


def complexity_of(labels: Sequence[Label], levels: Mapping[str, int]) -> float | None:
    """The declared complexity as a number: a level's rank, or the number that stands there."""
    for label in labels:
        if label.field == "complexity":
            if label.value.lower() in levels:
                return float(levels[label.value.lower()])
            try:
                return float(label.value)
            except ValueError:
                return None
    return None


def _mersenne_twister(seed: int) -> Callable[[int], int]:
    """Bits of MT19937 seeded with one 32-bit number, as torch and numpy do it; Python seeds otherwise."""
    words = [seed & 0xFFFFFFFF]
    for i in range(1, 624):
        words.append((1812433253 * (words[-1] ^ (words[-1] >> 30)) + i) & 0xFFFFFFFF)
    generator = random.Random()
    generator.setstate((3, (*words, 624), None))
    return generator.getrandbits
