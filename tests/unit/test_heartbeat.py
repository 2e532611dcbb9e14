"""What a process is doing, as the watchdog reads it."""

import time

import pytest

from lib.heartbeat import Heartbeat


@pytest.fixture
def heart() -> Heartbeat:
    return Heartbeat()


def test_phases_nest_and_add_up(heart: Heartbeat) -> None:
    told: list[str] = []
    heart.begin(lambda name, _: told.append(name))
    with heart.in_phase("training"):
        heart.beat("step 3")
        for _ in range(2):
            with heart.in_phase("save"):
                time.sleep(0.02)
                assert heart.where == "save"
        assert heart.where == "training, step 3"
    assert heart.where == "start"
    assert told == ["save", "save", "training"]
    assert 0.04 <= heart.seconds["save"] <= heart.seconds["training"]


def test_every_change_is_a_beat(heart: Heartbeat) -> None:
    before = heart.moved
    with heart.in_phase("load"):
        assert heart.beats == 1
        heart.beat()
    assert heart.beats == 3
    assert heart.moved >= before


def test_a_phase_that_fails_is_over_and_not_announced(heart: Heartbeat) -> None:
    told: list[str] = []
    heart.begin(lambda name, _: told.append(name))
    with pytest.raises(OSError), heart.in_phase("load"):  # noqa: PT011 (any)
        raise OSError
    assert heart.where == "start"
    assert "load" in heart.seconds
    assert not told


def test_a_function_can_be_a_phase(heart: Heartbeat) -> None:
    @heart.in_phase("attach")
    def attach() -> str:
        return heart.phase

    assert [attach(), attach()] == ["attach", "attach"]


def test_a_new_run_knows_nothing_of_the_one_before(heart: Heartbeat) -> None:
    with heart.in_phase("load"):
        pass
    heart.begin(lambda *_: None)
    assert not heart.seconds
    assert heart.beats == 0


def test_a_beat_costs_nothing(heart: Heartbeat) -> None:
    started = time.thread_time()
    for _ in range(10_000):
        heart.beat("step 1")
    assert (time.thread_time() - started) / 10_000 < 50e-6
