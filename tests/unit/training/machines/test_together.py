"""What the processes of a run do with each other, as threads."""

import time
from contextlib import suppress
from pathlib import Path

import pytest
from runs_of_threads import in_each, places

from lib.settings import InputError
from lib.settings.errors import Problem, RunError
from lib.training.machines import together
from lib.training.machines.alone import ALONE
from lib.training.machines.joined import joined
from lib.training.machines.meeting import Meeting
from lib.training.machines.together import PeerEndedError, Together
from lib.training.processes.signals import Interrupted
from lib.training.processes.worker_words import Told
from lib.training.sizing.world import World

TWO = places("a", "b")


@pytest.fixture(autouse=True)
def quick_and_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread of a lifeline would end the process of the tests; signals are those of the main thread."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setattr(together, "SPEAKING_SECONDS", 0.0)
    monkeypatch.setattr(together, "OWN_END_SECONDS", 0.0)
    monkeypatch.setattr(together, "STOPPED_SECONDS", 0.0)
    monkeypatch.setattr(together, "LAST_SECONDS", 0.0)
    monkeypatch.setattr(together.os, "_exit", lambda code: None)
    monkeypatch.setattr(together.signal, "signal", lambda *call: None)


def test_one_process_asks_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    with joined(World(1, 0)) as machines:
        assert machines is ALONE
        machines.agree("run", {"a": "1"})
        assert machines.decided("x", 3) == 3
        assert not machines.look(Path("nowhere"))
        machines.say("said")
    assert capsys.readouterr().out == "said\n"


@pytest.mark.parametrize(("rank", "looks"), [("0", True), ("1", False)])
def test_of_those_that_only_look_the_first_one_looks(
    rank: str, looks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RANK", rank), ("WORLD_SIZE", "2"), ("LOCAL_RANK", rank)):
        monkeypatch.setenv(name, value)
    looked = False
    with suppress(SystemExit), joined(World(2, 0), looks_only=True) as machines:
        looked = machines is ALONE
    assert looked == looks


def test_rank_0_decides_speaks_and_goes_first(capsys: pytest.CaptureFixture[str]) -> None:
    order: list[int] = []

    def run(meeting: Meeting) -> object:
        machines = Together(meeting)
        rank = meeting.place.rank
        machines.say("said")
        with machines.keepers_first("merge"):
            time.sleep(0.1 * (1 - rank))
            order.append(rank)
        found = machines.decided("state", f"of {rank}"), machines.on_first(str, rank), machines.keeps_files
        machines.done()
        return found

    assert in_each(TWO, run) == [("of 0", "0", True), ("of 0", None, False)]
    assert capsys.readouterr().out == "said\n"
    assert order == [0, 1]


def test_the_first_of_each_machine_goes_first() -> None:
    order: list[int] = []

    def run(meeting: Meeting) -> None:
        machines = Together(meeting)
        with machines.leaders_first("rows"):
            time.sleep(0.1 if meeting.place.leads else 0)
            order.append(meeting.place.rank)
        machines.done()

    in_each(places("a", "a", "b", "b"), run)
    assert sorted(order[:2]) == [0, 2]


def test_all_raise_the_same_for_a_difference() -> None:
    def run(meeting: Meeting) -> str:
        machines = Together(meeting)
        with pytest.raises(InputError) as caught:
            machines.agree("settings", {"SFT_LR": str(meeting.place.rank)})
        machines.done()
        return str(caught.value)

    first, second = in_each(TWO, run)
    assert first == second
    assert "b (rank 1): SFT_LR" in first


ENDS = {
    "input": (InputError([Problem("here", "SFT_LR")]), "failed:\nhere: SFT_LR", 1),
    "run": (RunError(Problem("disk", value="full")), "failed:\ndisk\n    given:    full", 1),
    "said": (Told("out of memory"), "failed:\nout of memory", 1),
    "bug": (KeyError("x"), "failed:\nKeyError: 'x'", 1),
    "exit": (SystemExit(3), "failed:\nit ended with 3", 1),
    "stopped": (Interrupted(15, "saved"), "was stopped: saved", 143),
}


@pytest.mark.parametrize("kind", ENDS)
def test_whoever_waits_ends_with_the_reason(kind: str) -> None:
    error, text, code = ENDS[kind]

    def run(meeting: Meeting) -> object:
        machines = Together(meeting)
        if meeting.place.rank:
            machines.failed(error)
            return None
        with pytest.raises(PeerEndedError) as caught:
            machines.decided("never", None) if meeting.place.rank else meeting.all("never", None)
        assert str(caught.value).startswith("ended, because rank 1 on b ")
        return caught.value.reason.text, caught.value.reason.code

    assert in_each(TWO, run)[0] == (text, code)


def test_a_lost_connection_becomes_the_reason() -> None:
    def run(meeting: Meeting) -> str:
        machines = Together(meeting)
        if meeting.place.rank:
            machines.ends_with("nothing moved")
            return ""
        with pytest.raises(PeerEndedError) as caught, machines.heeded():
            raise RuntimeError("[../gloo/transport/tcp/pair.cc:538] Connection closed by peer [10.0.0.2]:4")
        return caught.value.reason.text

    assert in_each(TWO, run)[0] == "ended:\nnothing moved"


@pytest.mark.parametrize(
    ("error", "seen"), [(KeyError("x"), PeerEndedError), (Interrupted(15, "saved"), Interrupted)]
)
def test_a_launcher_stops_the_neighbours_of_a_dead_process(
    error: BaseException, seen: type[BaseException]
) -> None:
    """Its signal is not taken for a person's wish; where a person has stopped all, it stays one."""

    def run(meeting: Meeting) -> None:
        machines = Together(meeting)
        if meeting.place.rank:
            machines.failed(error)
            return
        assert machines.lifeline.known.wait(10)
        with pytest.raises(seen), machines.heeded():
            raise Interrupted(15)

    in_each(TWO, run)


def test_other_errors_stay_what_they_are() -> None:
    def run(meeting: Meeting) -> None:
        machines = Together(meeting)
        with pytest.raises(ValueError, match="own"), machines.heeded():
            raise ValueError("own")
        machines.done()

    in_each(TWO, run)


def test_an_address_that_is_another_machines_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MASTER_ADDR", "192.0.2.1")  # kept for documents: nobody has it
    in_each(TWO, lambda meeting: Together(meeting).done())
    said = capsys.readouterr().out
    assert "[WARNING] no connection of one's own between the processes by way of 192.0.2.1 (rank 0" in said
