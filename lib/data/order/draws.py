"""Which rows are drawn, and how evenly. Pure arithmetic, the same on every machine.

Every choice of rows follows a hash of seed and content, so it does not depend on the rows' order.
"""

import hashlib
from collections.abc import Iterable, Sequence

from lib.data.reading.rows import Example
from lib.settings.errors import InputError

MOST_DRAWS = 100_000_000
"""Of one epoch; a slip in a size or a multiplier would fill all memory."""


def check_draws(draws: int, key: str) -> None:
    """Raises InputError, with `key` to blame, for more draws than an epoch can have."""
    if draws > MOST_DRAWS:
        raise InputError.of(
            where="data sets of the mix",
            key=key,
            value=f"{draws:.3g} draws an epoch",
            expected=f"at most {MOST_DRAWS:,} draws an epoch",
            remedy="lower it; to see rows more often set SFT_EPOCHS",
        )


def rank(seed: int, key: str) -> str:
    """Where a row of this key stands in the seeded order, as text that sorts."""
    return hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()


def drawing_order(rows: Iterable[Example], seed: int) -> list[Example]:
    """The seeded order in which rows are drawn."""
    return sorted(rows, key=lambda row: (rank(seed, f"draw:{row.key}"), row.labels, row.index))


def even_counts(draws: int, rows: int) -> list[int]:
    """How often each row is drawn: ⌊draws/rows⌋, and one more for the first `draws mod rows` of them."""
    if rows == 0:
        return []
    every, extra = divmod(draws, rows)
    return [every + (i < extra) for i in range(rows)]


def even_draws_of_size(amount: float, sizes: Sequence[int]) -> list[int]:
    """How often each row is drawn so that the sizes drawn add up to about `amount`.

    Whole passes over all rows, then one more for the first rows: as many as bring the sum nearest to the
    amount (the fewer of two). Off by at most half the size of one row.
    """
    whole = sum(sizes)
    if not whole:
        return [0 for _ in sizes]
    every, rest = divmod(amount, whole)
    reached, best, extra = 0, rest, 0
    for i, size in enumerate(sizes, start=1):
        reached += size
        if abs(reached - rest) < best:
            best, extra = abs(reached - rest), i
        if reached >= rest:
            break
    return [int(every) + (i < extra) for i in range(len(sizes))]
