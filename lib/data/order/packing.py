"""Which rows share a training sequence. Pure arithmetic over lengths, the same on every machine."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

Pack = tuple[int, ...]
"""Positions of the rows that stand in one sequence, in this order."""


@dataclass(frozen=True)
class PackCount:
    """How full the sequences are. `fill` is the share of `packs` × `capacity` that holds tokens."""

    rows: int
    packs: int
    capacity: int
    """Tokens."""
    fill: float

    @classmethod
    def of(cls, lengths: Sequence[int], packs: Sequence[Pack], capacity: int) -> PackCount:
        room = len(packs) * capacity
        return cls(len(lengths), len(packs), capacity, round(sum(lengths) / room, 4) if room else 0.0)

    def line(self) -> str:
        return (
            f"{self.packs:,} sequences of at most {self.capacity:,} tokens, {100 * self.fill:.1f} % full, "
            f"{self.rows_per_pack:.1f} rows each"
        )

    @property
    def rows_per_pack(self) -> float:
        return self.rows / self.packs if self.packs else 0.0


def pack_rows(lengths: Sequence[int], *, capacity: int, seed: int) -> tuple[Pack, ...]:
    """Every row once, whole, in sequences of at most `capacity` tokens, in an order shuffled by `seed`.

    Best-fit decreasing: the longest row first, each into the fullest sequence that still has room (for many
    rows at most 11/9 of the fewest sequences; Johnson et al. 1974). Rows of equal length keep their order,
    which the mixture has shuffled. O(n log n), the room being found in a set of bits.
    Raises ValueError for a row that is empty or longer than `capacity`.
    """
    packs: list[list[int]] = []
    with_room: defaultdict[int, deque[list[int]]] = defaultdict(deque)
    rooms = 0  # bit r is set while some sequence has room for exactly r more tokens
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[row]
        if not 0 < length <= capacity:
            raise ValueError(f"row {row} has {length} tokens, a sequence takes 1 to {capacity}")
        if fitting := rooms >> length:
            room = length + (fitting & -fitting).bit_length() - 1
            pack = with_room[room].popleft()
            if not with_room[room]:
                rooms ^= 1 << room
        else:
            room, pack = capacity, []
            packs.append(pack)
        pack.append(row)
        if room > length:
            with_room[room - length].append(pack)
            rooms |= 1 << (room - length)
    shuffle = random.Random(seed).shuffle
    for pack in packs:
        shuffle(pack)
    shuffle(packs)
    return tuple(map(tuple, packs))


def rows_alone(rows: int) -> tuple[Pack, ...]:
    """A sequence for each row, in the order of the rows."""
    return tuple((row,) for row in range(rows))
