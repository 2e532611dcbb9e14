import os
import socket
import time

import pytest
from free_port import free_port
from runs_of_threads import in_each, places

from lib.settings.errors import RunError
from lib.training.machines.meeting import JOIN, JOIN_SECONDS, Meeting, open_meeting
from lib.training.machines.place import Place

THREE = places("a", "a", "b")


def test_everybody_hears_everybody_again_and_again() -> None:
    def speak(meeting: Meeting) -> list[object]:
        rank = meeting.place.rank
        return [meeting.all("rank", rank), meeting.all("rank", {"x": rank}), meeting.first("rank", rank + 7)]

    assert in_each(THREE, speak) == [[[0, 1, 2], [{"x": 0}, {"x": 1}, {"x": 2}], 7]] * 3


def test_japanese_and_long_words_arrive() -> None:
    text = "にゃ\U0001f431" * 10_000
    assert in_each(THREE[:2], lambda meeting: meeting.first("said", text)) == [text] * 2


def test_waiting_ends_when_looking_up_finds_a_reason() -> None:
    def wait(meeting: Meeting) -> None:
        if meeting.place.rank == 0:
            meeting.look_up = lambda: (_ for _ in ()).throw(RunError)  # type: ignore[assignment]
            with pytest.raises(TypeError):
                meeting.all("never", None)

    in_each(THREE[:2], wait)


def test_a_place_is_what_a_launcher_says() -> None:
    place = Place.of({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"})
    assert (place.rank, place.processes, place.leads) == (5, 8, False)
    assert place.name == f"rank 5 on {socket.gethostname()}"


def meeting_point(seconds: float = 0.5) -> dict[str, str]:
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), JOIN: str(seconds)}


def test_who_does_not_come_is_named() -> None:
    environ = meeting_point()
    with pytest.raises(RunError) as caught:
        open_meeting(Place(0, 3, 0, "first"), environ)
    said = str(caught.value)
    assert f"127.0.0.1:{environ['MASTER_PORT']}: processes of this run" in said
    assert "rank 1, 2 did not come within 0 s; there are: rank 0 on first" in said
    assert JOIN in said


def test_a_first_machine_that_is_not_there_is_named() -> None:
    started = time.monotonic()
    with pytest.raises(RunError) as caught:
        open_meeting(Place(1, 2, 0, "second"), meeting_point())
    assert "rank 1 on second\n    given:    rank 0 was not reached within 0 s (" in str(caught.value)
    assert time.monotonic() - started < JOIN_SECONDS / 10  # what it would wait of itself


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environ = {**meeting_point(), "MASTER_PORT": str(taken.getsockname()[1])}
        with pytest.raises(RunError, match="port that the processes meet at is taken"):
            open_meeting(Place(0, 2, 0, "first"), environ)


def test_the_environment_is_left_alone() -> None:
    before = dict(os.environ)
    with pytest.raises(RunError):
        open_meeting(Place(0, 2, 0, "first"), meeting_point(0.1))
    assert dict(os.environ) == before
