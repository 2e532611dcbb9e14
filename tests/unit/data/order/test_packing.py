import random
from collections import Counter
from itertools import combinations

import pytest

from lib.data.order.packing import PackCount, pack_rows, rows_alone


def lengths(count: int, *, longest: int, seed: int = 0) -> list[int]:
    draw = random.Random(seed)
    return [draw.randint(1, longest) for _ in range(count)]


@pytest.mark.parametrize("longest", [5, 60, 100])
def test_every_row_once_and_no_sequence_too_long(longest: int) -> None:
    rows = lengths(500, longest=longest)
    packs = pack_rows(rows, capacity=100, seed=1)
    assert sorted(row for pack in packs for row in pack) == list(range(500))
    assert all(sum(rows[row] for row in pack) <= 100 for pack in packs)


def test_best_fit_not_first_fit() -> None:
    """6 and 5 open two sequences of 10; 5 fits the second alone, then 4 the first."""
    packs = pack_rows([6, 5, 5, 4], capacity=10, seed=0)
    assert sorted(sorted(pack) for pack in packs) == [[0, 3], [1, 2]]
    # Of sequences with room for 3 and for 4 the row of 3 takes the fuller one.
    packs = pack_rows([7, 6, 3, 4], capacity=10, seed=0)
    assert sorted(sorted(pack) for pack in packs) == [[0, 2], [1, 3]]


def slow_best_fit(rows: list[int], capacity: int) -> list[int]:
    """Rooms left by best-fit decreasing, by looking at every sequence."""
    rooms: list[int] = []
    for length in sorted(rows, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
        rooms.append((min(fitting) if fitting else capacity) - length)
    return sorted(rooms)


@pytest.mark.parametrize("seed", range(5))
def test_rooms_are_those_of_the_plain_algorithm(seed: int) -> None:
    rows = lengths(300, longest=80, seed=seed)
    packs = pack_rows(rows, capacity=100, seed=seed)
    assert sorted(100 - sum(rows[row] for row in pack) for pack in packs) == slow_best_fit(rows, 100)


def test_the_seed_decides_the_order_and_nothing_else() -> None:
    rows = lengths(200, longest=50)
    first, again, other = (pack_rows(rows, capacity=64, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert Counter(tuple(sorted(pack)) for pack in first) == Counter(tuple(sorted(pack)) for pack in other)


def test_sequences_are_shuffled() -> None:
    """Else an epoch would begin with the longest rows."""
    rows = lengths(400, longest=100)
    leading = [max(rows[row] for row in pack) for pack in pack_rows(rows, capacity=100, seed=3)]
    falling = sum(a >= b for a, b in combinations(leading, 2)) / (len(leading) * (len(leading) - 1) / 2)
    assert 0.4 < falling < 0.65


@pytest.mark.parametrize("length", [0, 11])
def test_a_row_that_fits_nowhere_is_an_error(length: int) -> None:
    with pytest.raises(ValueError, match=f"row 1 has {length} tokens, a sequence takes 1 to 10"):
        pack_rows([3, length], capacity=10, seed=0)


def test_nothing_to_pack() -> None:
    assert pack_rows([], capacity=10, seed=0) == ()
    assert PackCount.of([], (), 10) == PackCount(0, 0, 10, 0.0)
    assert PackCount.of([], (), 10).rows_per_pack == 0


def test_counts() -> None:
    count = PackCount.of([4, 4, 7], ((0, 1), (2,)), 10)
    assert count == PackCount(rows=3, packs=2, capacity=10, fill=0.75)
    assert count.line() == "2 sequences of at most 10 tokens, 75.0 % full, 1.5 rows each"
    assert rows_alone(3) == ((0,), (1,), (2,))
