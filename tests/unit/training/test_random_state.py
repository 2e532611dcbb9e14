import random

import pytest

from lib.training.random_state import untouched_random_state


@pytest.mark.parametrize("fails", [False, True])
def test_what_the_block_draws_does_not_show_afterwards(fails: bool) -> None:
    import numpy
    import torch

    def seed() -> None:
        random.seed(1)
        numpy.random.seed(2)
        torch.manual_seed(3)

    def draw() -> tuple[float, float, float]:
        return random.random(), float(numpy.random.rand()), float(torch.rand(()))

    seed()
    expected = draw()
    seed()
    try:
        with untouched_random_state():
            first = draw()
            draw()
            if fails:
                raise ValueError
    except ValueError:
        pass
    assert draw() == expected == first
