from types import SimpleNamespace
from typing import Any

import pytest

from lib.training import progress
from lib.training.progress import ProgressCallback


def state(step: int = 4, zero: bool = True) -> Any:
    return SimpleNamespace(global_step=step, max_steps=10, is_world_process_zero=zero)


@pytest.fixture
def callback(monkeypatch: pytest.MonkeyPatch) -> ProgressCallback:
    """Twenty seconds into the run to the millisecond, without a terminal."""
    made = ProgressCallback()
    made.on_train_begin(None, state(0), None)  # type: ignore[arg-type]
    now = made.started + 20
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now))
    return made


def shown(callback: ProgressCallback, logs: dict[str, float], capsys: Any, **of_state: Any) -> str:
    callback.on_log(None, state(**of_state), None, logs=logs)  # type: ignore[arg-type]
    return str(capsys.readouterr().out)


def test_lines_without_a_terminal(callback: ProgressCallback, capsys: pytest.CaptureFixture[str]) -> None:
    assert callback.bar is None
    line = shown(callback, {"loss": 1.23456, "learning_rate": 2e-4, "num_tokens": 8000}, capsys)
    assert line == "  step     4/10  loss 1.2346  lr 2.00e-04  400 tokens/s  30 s left\n"
    assert shown(callback, {"eval_loss": 0.5}, capsys) == "  step     4/10  eval_loss 0.5000\n"


def test_silence(callback: ProgressCallback, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(callback, {"train_runtime": 3.0}, capsys) == ""
    assert shown(callback, {}, capsys) == ""
    assert shown(callback, {"loss": 1.0}, capsys, zero=False) == ""
