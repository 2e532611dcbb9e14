"""Half of the experts a thread, with the same sums as on one thread."""

from collections.abc import Iterator

import pytest
import torch
from expert_blocks import ROUTINGS, draw, make_block, run

from lib.model.expert_lora.halves import in_halves


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_halves_are_in_order_and_threads_are_put_back() -> None:
    def work(number: int, half: object) -> tuple[int, object, int, bool]:
        return number, half, torch.get_num_threads(), torch.is_grad_enabled()

    with torch.no_grad():
        found = in_halves(work, [1, 2, 3])
    assert found == [(0, [1, 2], 1, False), (1, [3], 1, False)]
    assert torch.get_num_threads() == 2
    assert in_halves(lambda _, half: half, ["alone"]) == [["alone"]]


@pytest.mark.parametrize("number", [0, 1])
def test_an_error_in_either_half_is_raised_when_both_are_done(number: int) -> None:
    done = []

    def work(half: int, items: object) -> None:
        if half == number:
            raise ValueError(str(items))
        done.append(half)

    with pytest.raises(ValueError, match=str([number])[1:-1]):
        in_halves(work, [0, 1])
    assert done == [1 - number]
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_one_thread_and_two_give_the_same_bits(dropout: float) -> None:
    block, chosen = make_block(dropout=dropout).train(), ROUTINGS["random"]()
    drawn = draw(chosen, torch.float32)
    results = []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        torch.manual_seed(5)
        results.append(run(block, chosen, drawn))
    one, two, again = results
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(torch.equal(two[name], again[name]) for name in one)
