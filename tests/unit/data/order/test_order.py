import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.order.order import (
    STARTING_PART,
    Pacing,
    TrainingOrder,
    complexity_of,
    grouped,
    paced,
    permutation,
)
from lib.data.reading.labels import Label

PACINGS: tuple[Pacing, ...] = ("linear", "root", "step")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 3000), st.integers(0, 2**32 + 5))
def test_the_shuffled_order_is_that_of_torchs_random_sampler(rows: int, seed: int) -> None:
    import torch

    generator = torch.Generator()
    generator.manual_seed(seed)
    assert permutation(rows, seed) == torch.randperm(rows, generator=generator).tolist()


def test_it_is_the_order_in_which_accelerate_shuffles_each_epoch() -> None:
    from accelerate.data_loader import SeedableRandomSampler

    sampler = SeedableRandomSampler(list(range(50)), data_seed=3407)
    order = TrainingOrder(50, 3407)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        assert list(sampler) == order.epoch(epoch)


@given(st.lists(st.integers(0, 9), max_size=60), st.sampled_from(PACINGS), st.integers(0, 9))
def test_every_row_comes_once_and_the_same_seed_gives_the_same_order(
    difficulty: list[int], pacing: Pacing, seed: int
) -> None:
    order = paced(difficulty, pacing, seed)
    assert sorted(order) == list(range(len(difficulty)))
    assert order == paced(difficulty, pacing, seed)


@given(st.integers(2, 80), st.integers(0, 9))
def test_steps_open_a_quarter_at_a_time(rows: int, seed: int) -> None:
    difficulty = random.Random(seed).sample(range(rows), rows)
    order = [difficulty[i] for i in paced(difficulty, "step", seed)]
    for place, level in enumerate(order):
        open_rows = -(-rows * (4 * place // rows + 1) // 4)
        assert level < open_rows


def test_linear_keeps_to_the_easy_rows_and_root_opens_sooner() -> None:
    rows = 1000
    linear, root = (paced(range(rows), pacing, 1) for pacing in ("linear", "root"))
    assert max(linear[:10]) <= (STARTING_PART + 0.02) * rows
    for place, row in enumerate(linear):
        assert row < rows * (STARTING_PART + (1 - STARTING_PART) * place / rows) + 1
    quarter = rows // 4
    assert sum(linear[:quarter]) < sum(root[:quarter]) < sum(range(rows)) / 4


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 500), min_size=1, max_size=900), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_rows_of_a_length_stand_together_as_transformers_has_it(
    lengths: list[int], together: int, seed: int
) -> None:
    import torch
    from transformers.trainer_pt_utils import get_length_grouped_indices

    generator = torch.Generator().manual_seed(seed)
    expected = get_length_grouped_indices(lengths, together, generator=generator)
    assert grouped(lengths, together, seed) == expected
    order = TrainingOrder(len(lengths), seed, lengths=tuple(lengths), together=together)
    assert order.epoch(0) == expected
    assert sorted(order.epoch(1)) == list(range(len(lengths)))


def test_epochs_differ_and_start_easy_again() -> None:
    order = TrainingOrder(100, 7, tuple(range(100)))
    assert order.epoch(0) != order.epoch(1)
    assert max(order.epoch(1)[:5]) < 20


@pytest.mark.parametrize(("value", "level"), [("Simple", 0), ("medium", 1), ("3.5", 3.5), ("odd", None)])
def test_complexity_is_a_rank_or_a_number(value: str, level: float | None) -> None:
    levels = {"simple": 0, "medium": 1}
    assert complexity_of((Label("type", "medium"), Label("complexity", value)), levels) == level
    assert complexity_of((), levels) is None
