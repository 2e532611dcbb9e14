"""Which checkpoints are kept, and that saving one is all or nothing."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.training.checkpoints.checkpoints import Checkpoints, latest_outline, superfluous
from lib.training.checkpoints.manifest import verified

ALONE: Any = SimpleNamespace(is_main_process=True, wait_for_everyone=lambda: None)
CHANGES = ("fsync", "replace", "mkdir", "rmdir", "unlink", "open")
KILLED = 9


FALLING = {10: 1.0, 20: 2.0, 30: 3.0, 40: 4.0, 50: 5.0}


@pytest.mark.parametrize(
    ("scores", "limit", "highest", "kept"),
    [
        ({}, 3, False, {30, 40, 50}),
        (FALLING, 2, False, {10, 20, 50}),
        (FALLING, 2, True, {40, 50}),
        ({20: 0.5, 40: 0.5}, 1, True, {20, 50}),
        ({10: float("nan"), 20: 1.0}, 1, False, {20, 50}),
    ],
)
def test_the_best_and_the_last_are_kept(
    scores: dict[int, float], limit: int, highest: bool, kept: set[int]
) -> None:
    removed = superfluous([10, 20, 30, 40, 50], scores, limit, 50, highest=highest)
    assert {10, 20, 30, 40, 50} - set(removed) == kept


@given(
    st.dictionaries(st.integers(1, 99), st.none() | st.floats(allow_nan=True), min_size=1),
    st.integers(1, 5),
    st.booleans(),
)
def test_rotation_never_removes_the_best_or_the_last(
    found: dict[int, float | None], limit: int, highest: bool
) -> None:
    scores = {step: score for step, score in found.items() if score is not None}
    steps, last = sorted(found), max(found)
    left = set(steps) - set(superfluous(steps, scores, limit, last, highest=highest))
    assert last in left
    assert len(left) <= limit + 1
    numbers = [score for score in scores.values() if score == score]
    if numbers:
        best = (max if highest else min)(numbers)
        assert min(step for step, score in scores.items() if score == best) in left


def save(checkpoints: Checkpoints, step: int, text: str) -> None:
    with checkpoints.writing(step, ALONE) as folder:
        (folder / "weights").write_text(text)
        (folder / "inner").mkdir()
        (folder / "inner" / "shard").write_text(text * 2)


def test_whole_or_not_there(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, {"SFT_LR": "1e-4", "data set 日本": "x"})

    def stopped() -> None:
        with checkpoints.writing(3, ALONE) as folder:
            (folder / "weights").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert list(tmp_path.iterdir()) == []
    save(checkpoints, 3, "whole")
    found = verified(checkpoints.at(3))
    assert (found.step, found.fingerprint) == (3, {"SFT_LR": "1e-4", "data set 日本": "x"})
    assert found.files["inner/shard"][0] == 10
    assert latest_outline(tmp_path) == found
    assert latest_outline(tmp_path / "nothing") is None


def rotated(checkpoints: Checkpoints, step: int) -> None:
    save(checkpoints, step, f"new {step}")
    history = [{"step": 1, "eval_loss": 3.0}, {"step": 2, "eval_loss": 1.0}, {"step": 3, "eval_loss": 2.0}]
    checkpoints.rotate(history, "eval_loss", 1, step)


def in_child(work: Callable[[], None], stop_at: int | None) -> tuple[int, int]:
    """Exit code and number of changes to the disk of `work` in a child that dies before change `stop_at`."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        count, code = 0, 1

        def watched(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **keywords: Any) -> Any:
                nonlocal count
                count += 1
                if count == stop_at:
                    os._exit(KILLED)
                return real(*args, **keywords)

            return call

        try:
            for name in CHANGES:
                setattr(os, name, watched(getattr(os, name)))
            work()
            code = 0
        finally:
            os.write(writer, str(count).encode())
            os._exit(code)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        return os.waitstatus_to_exitcode(status), int(pipe.read() or 0)


def test_killed_at_any_change_the_newest_whole_one_is_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fresh(name: str) -> Checkpoints:
        checkpoints = Checkpoints(tmp_path / name, {})
        for step in (1, 2, 3):
            save(checkpoints, step, f"old {step}")
        return checkpoints

    monkeypatch.setattr(os, "fsync", lambda _: None)  # nobody pulls the plug here, and it takes time
    code, changes = in_child(lambda: rotated(fresh("count"), 4), None)
    assert code == 0
    for moment in range(1, changes + 1):
        checkpoints = fresh(f"at {moment}")
        code, _ = in_child(lambda c=checkpoints: rotated(c, 4), moment)  # type: ignore[misc]
        manifest, notices = checkpoints.newest_whole(goes_back=False)
        assert manifest is not None
        assert (manifest.step in {3, 4}, notices) == (True, []), moment
        assert 2 in checkpoints.steps(), moment  # the best
        rotated(checkpoints, 4)
        assert checkpoints.steps() == [2, 4]
        assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["checkpoint-2", "checkpoint-4"]


class FailsAt:
    """A call of os that fails when it is made for the `number`-th time."""

    def __init__(self, name: str, number: int, code: int) -> None:
        self.real, self.number, self.code, self.calls = getattr(os, name), number, code, 0

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        self.calls += 1
        if self.calls == self.number:
            raise OSError(self.code, os.strerror(self.code))
        return self.real(*args, **keywords)


@pytest.mark.parametrize("name", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_call_that_fails_loses_nothing(
    name: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every single call of its kind."""
    checkpoints = Checkpoints(tmp_path, {})
    save(checkpoints, 1, "old")
    calls = FailsAt(name, 0, code)
    with monkeypatch.context() as patched:
        patched.setattr(os, name, calls)
        save(checkpoints, 2, "new")
    checkpoints.remove_all()
    save(checkpoints, 1, "old")
    for number in range(1, calls.calls + 1):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, FailsAt(name, number, code))
            with pytest.raises(OSError, match=os.strerror(code)):
                save(checkpoints, 2, "new")
        manifest, notices = checkpoints.newest_whole(goes_back=False)
        assert manifest is not None
        assert notices == []
        assert {path.name for path in tmp_path.iterdir()} <= {"checkpoint-1", "checkpoint-2"}
    save(checkpoints, 2, "new")
    assert verified(checkpoints.at(2)).step == 2


def with_best(checkpoints: Checkpoints, step: int, best: int) -> None:
    with checkpoints.writing(step, ALONE) as folder:
        (folder / "trainer_state.json").write_text(f'{{"best_global_step": {best}}}')


def test_the_best_must_be_whole_too(tmp_path: Path) -> None:
    """A run ends with its weights: it goes on from before it. The newest is not damaged and stays."""
    checkpoints = Checkpoints(tmp_path, {})
    for step, best in ((2, 2), (4, 4), (6, 4)):
        with_best(checkpoints, step, best)
    (checkpoints.at(4) / "trainer_state.json").write_text("{}")
    manifest, _ = checkpoints.newest_whole(goes_back=False)
    assert manifest is not None
    assert manifest.step == 6
    manifest, (notice,) = checkpoints.newest_whole(goes_back=True)
    assert manifest is not None
    assert manifest.step == 2
    assert "checkpoint-4 is damaged" in notice
    assert checkpoints.steps() == [2, 6]
    manifest, (notice,) = checkpoints.newest_whole(goes_back=True)
    assert manifest is not None
    assert manifest.step == 2
    assert "checkpoint-4, the best so far, is missing" in notice
