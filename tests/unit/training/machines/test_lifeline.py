"""The end of one process reaches the others, by real connections on this host."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from eventually import PATIENCE, eventually
from free_port import free_port

from lib.training.machines import lifeline
from lib.training.machines.lifeline import Lifeline, Reason, bindable
from lib.training.machines.place import Place

ROOT = Path(__file__).parents[4]
TOKEN = "of this run"


class Ranks:
    """Lifelines of one run, and what each was told."""

    def __init__(self, count: int) -> None:
        self.told: list[list[Reason]] = [[] for _ in range(count)]
        self.lines = [
            Lifeline(Place(rank, count, 0, f"host{rank}"), self.told[rank].append) for rank in range(count)
        ]
        self.lines[0].listen("127.0.0.1", TOKEN)
        self.port = self.lines[0].port
        for line in self.lines[1:]:
            line.connect("127.0.0.1", self.port, TOKEN, "host0")
        for line in self.lines:
            line.start()
        eventually(lambda: len([peer for peer in self.lines[0]._peers if peer.place]) == count - 1)

    def drop(self, rank: int) -> None:
        """As the kernel does for a process that is killed."""
        self.lines[rank]._over = True
        self.lines[rank].join()
        for peer in self.lines[rank]._peers:
            peer.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def ranks() -> Iterator[Ranks]:
    made = Ranks(3)
    yield made
    for line in made.lines:
        line.end_well()


def test_a_reason_reaches_all_others_in_its_words(ranks: Ranks) -> None:
    why = Reason(1, "host1", "failed:\nデータがない")
    ranks.lines[1].fail(why)
    eventually(lambda: ranks.told[0] and ranks.told[2])
    assert ranks.told == [[why], [], [why]]
    assert str(why) == "rank 1 on host1 failed:\nデータがない"


def test_rank_0s_own_reason_too(ranks: Ranks) -> None:
    why = Reason(0, "host0", "was stopped", code=143)
    ranks.lines[0].fail(why)
    eventually(lambda: ranks.told[1] and ranks.told[2])
    assert ranks.told == [[], [why], [why]]


@pytest.mark.parametrize("dead", [0, 2])
def test_a_process_that_is_killed_is_missed(dead: int, ranks: Ranks) -> None:
    ranks.drop(dead)
    others = [rank for rank in range(3) if rank != dead]
    eventually(lambda: all(ranks.told[rank] for rank in others))
    for rank in others:
        (reason,) = ranks.told[rank]
        assert (reason.rank, reason.host) == (dead, f"host{dead}")
        assert "ended without a word: it was killed" in reason.text


def test_who_is_done_is_not_missed(ranks: Ranks) -> None:
    ranks.lines[1].end_well()
    ranks.drop(1)
    time.sleep(0.3)
    assert ranks.told == [[], [], []]
    ranks.lines[2].fail(Reason(2, "host2", "failed"))
    eventually(lambda: ranks.told[0])


def test_the_cause_is_told_and_not_what_follows_from_it(ranks: Ranks) -> None:
    ranks.lines[2].fail(Reason(2, "host2", "lost its connection", follows=True))
    time.sleep(0.1)
    ranks.lines[1].fail(Reason(1, "host1", "the disk is full"))
    eventually(lambda: ranks.told[0])
    assert ranks.told[0] == [Reason(1, "host1", "the disk is full")]


def test_what_only_follows_is_told_when_nothing_else_comes(
    ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifeline, "FOLLOWING_SECONDS", 0.2)
    why = Reason(2, "host2", "lost its connection", follows=True)
    ranks.lines[2].fail(why)
    eventually(lambda: ranks.told[0] and ranks.told[1])
    assert ranks.told[1] == [why]


def test_only_the_first_reason_is_told(ranks: Ranks) -> None:
    ranks.lines[1].fail(Reason(1, "host1", "first"))
    eventually(lambda: ranks.told[0])
    ranks.drop(2)
    time.sleep(0.3)
    assert [reason.text for reason in ranks.told[0]] == ["first"]


def test_a_name_that_means_only_this_machine_is_not_listened_at() -> None:
    """Debian's installer writes `127.0.1.1 name` into /etc/hosts."""
    assert (bindable("127.0.1.1"), bindable("::1"), bindable("192.0.2.7")) == ("", "", "192.0.2.7")
    line = Lifeline(Place(0, 2, 0, "host0"), lambda reason: None)
    line.listen("", TOKEN)
    assert line.port


def test_strangers_are_not_heard(ranks: Ranks) -> None:
    for greeting in (
        b'{"token": "guessed", "rank": 1, "host": "x"}\n{"failed": {"rank": 1, "host": "x", "text": "y"}}\n',
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 100_000,
    ):
        with socket.create_connection(("127.0.0.1", ranks.port)) as stranger:
            stranger.sendall(greeting)
            time.sleep(0.1)
    assert ranks.told == [[], [], []]
    ranks.lines[1].fail(Reason(1, "host1", "failed"))
    eventually(lambda: ranks.told[0] and ranks.told[2])


HANGS = """
import os, sys, time
from lib.training.machines import together
from lib.training.machines.meeting import open_meeting
from lib.training.machines.place import Place
together.OWN_END_SECONDS = 0.2
rank = int(sys.argv[1])
os.environ.update(RANK=sys.argv[1], WORLD_SIZE="2", LOCAL_RANK=sys.argv[1], MASTER_ADDR="127.0.0.1",
                  MASTER_PORT=sys.argv[2])
joined = together.Together(open_meeting(Place.of()))
if rank == 1:
    if os.fork() == 0:
        time.sleep(120)  # a worker of it lives on, as one that tokenises does
    os.kill(os.getpid(), 9)
time.sleep(120)  # as in a collective that NCCL would not give up
"""


def test_a_process_that_hangs_ends_with_the_reason() -> None:
    port = str(free_port())
    command = [sys.executable, "-c", HANGS]
    # The second one's worker would keep a pipe open.
    second = subprocess.Popen([*command, "1", port], cwd=ROOT, start_new_session=True)
    try:
        first = subprocess.run(
            [*command, "0", port], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
        )
    finally:
        subprocess.run(["kill", "-9", "--", f"-{second.pid}"], check=False)
        second.wait()
    assert first.returncode == 1
    assert "[rank 0] ended, because rank 1 on" in first.stderr
    assert "ended without a word" in first.stderr
