"""Training that is stopped and taken up again is the training that was not: same weights, same log."""

from collections.abc import Callable
from typing import Any

import pytest
from interrupted_runs import Ended, SignalAt, Trained

STEPS = 14


@pytest.fixture(scope="module")
def whole(make_trained: Callable[..., Trained]) -> Ended:
    """Never stopped."""
    ended = make_trained().session()
    assert ended.result.steps == STEPS
    return ended


def same(found: Ended, expected: Ended) -> None:
    assert found.weights == expected.weights
    assert found.history == expected.history
    for name in ("steps", "tokens", "final_eval", "best_step", "kept_step", "best_metric"):
        left, right = (getattr(ended.result, name) for ended in (found, expected))
        assert without_time(left) == without_time(right), name


def without_time(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: v for k, v in value.items() if "runtime" not in k and "per_second" not in k}
    return value


@pytest.mark.parametrize(
    ("step", "when"),
    [(3, "within"), (4, "evaluation"), (8, "evaluated"), (14, "step")],
)
def test_stopped_once(step: int, when: str, make_trained: Callable[..., Trained], whole: Ended) -> None:
    same(make_trained().until_done(SignalAt(step, when)), whole)


def test_stopped_again_and_again(make_trained: Callable[..., Trained], whole: Ended) -> None:
    stops = [(4, "step"), (5, "within"), (8, "evaluation"), (14, "evaluation")]
    same(make_trained().until_done(*(SignalAt(*stop) for stop in stops)), whole)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["within", "step", "save"])
def test_stopped_at_every_step(when: str, make_trained: Callable[..., Trained], whole: Ended) -> None:
    steps = {"save": [4, 8, 12], "within": [n for n in range(1, STEPS) if n != 7]}  # 7 and 14: one pass each
    for step in steps.get(when, range(1, STEPS + 1)):
        same(make_trained().until_done(SignalAt(step, when)), whole)


@pytest.mark.slow
def test_stopped_after_every_single_step(make_trained: Callable[..., Trained], whole: Ended) -> None:
    trained = make_trained()
    same(trained.until_done(*(SignalAt(step, "step") for step in range(1, STEPS + 1))), whole)
