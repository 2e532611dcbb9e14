"""The first step of a real training run, pass by pass."""

from collections.abc import Callable
from typing import Any

import pytest

from lib.heartbeat import HEART
from lib.training.first_step import torch_optimizer


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every phase that is entered from now on."""
    found: list[str] = []
    plain = HEART.in_phase

    def noted(name: str) -> Any:
        found.append(name)
        return plain(name)

    monkeypatch.setattr("lib.training.first_step.phase", noted)
    HEART.begin(lambda *_: None)
    return found


def test_the_first_step_says_its_times_once(
    make_trained: Callable[..., Any], passes: list[str], capsys: Any
) -> None:
    """Two passes a step, and an evaluation in between: each phase is entered once, by the first pass."""
    ended = make_trained(SFT_MAX_STEPS=3, SFT_EVAL_STEPS=2, SFT_SAVE_STEPS=4).session()
    assert passes == ["first forward", "first backward", "first optimizer step"]
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "phases:" in line]
    assert "first forward 0." in line
    assert " s, backward " in line
    assert " s, optimizer step " in line
    assert set(passes) < ended.result.phase_seconds.keys()
    assert ended.result.to_json()["phase_seconds"]["first backward"] >= 0
    assert HEART.where == "start"
    assert HEART.beats >= 3 * 2, "every pass is one"


def test_the_optimizer_inside_of_its_wrappers_is_found() -> None:
    import torch

    own = torch.optim.SGD([torch.zeros(1)])
    wrapper = type("Wrapper", (), {"optimizer": type("Zero", (), {"optimizer": own})()})()
    assert torch_optimizer(wrapper) is own
    assert torch_optimizer(own) is own
