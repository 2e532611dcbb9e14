"""The thread that sends, against stores that fail in every way."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from eventually import PATIENCE, eventually

from lib.tracking import sender as sender_module
from lib.tracking.journal import Journal
from lib.tracking.run_file import RunFile, read_run_file
from lib.tracking.sender import Sender


class RefusedError(Exception):
    pass


@dataclass
class FakeStore:
    """Takes lines while `up`; `refuses` names what it never takes, `chokes` what it fails on alone."""

    up: bool = True
    is_new: bool = False
    refuses: str = ""
    chokes: str = ""
    hangs: threading.Event | None = None
    got: list[Any] = field(default_factory=list)
    opened: int = 0

    def open(self, run_id: str, first: dict[str, Any]) -> str:
        self._reached()
        self.opened += 1
        return run_id or "run"

    def answers(self) -> bool:
        return self.up

    def send(self, entries: list[dict[str, Any]]) -> None:
        self._reached()
        for entry in entries:
            if entry.get("name") and entry["name"] in (self.refuses, self.chokes):
                raise RefusedError("never") if entry["name"] == self.refuses else ValueError("this one not")
        self.got += [entry.get("name", entry["op"]) for entry in entries]

    def _reached(self) -> None:
        if self.hangs:
            self.hangs.wait(PATIENCE)
        if not self.up:
            raise ConnectionError("nobody there at https://me:hunter2@host")


def is_refused(error: Exception) -> bool:
    return isinstance(error, RefusedError)


MakeSender = Callable[..., Sender]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "PAUSES", (0.02,))


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeSender]:
    made: list[Sender] = []

    def begun(store: FakeStore, file: RunFile | None = None) -> Sender:
        journal = Journal(tmp_path / "tracking-1.jsonl")
        if journal.size == 0:
            journal.add({"op": "run", "name": ""})
        file = file or RunFile("", "e", "s", journal.path.name)
        sender = Sender(
            journal,
            file,
            store,
            keep=lambda f: f.write(tmp_path),
            refused=lambda e: isinstance(e, RefusedError),
        )
        sender.start()
        made.append(sender)
        return sender

    yield begun
    for sender in made:
        sender._store.up = True  # type: ignore[attr-defined]
        if sender._store.hangs:  # type: ignore[attr-defined]
            sender._store.hangs.set()  # type: ignore[attr-defined]
        sender.close(remove=False)
        sender.join(PATIENCE)
        assert not sender.is_alive()


def tell(sender: Sender, *names: str) -> None:
    for name in names:
        sender.journal.add({"op": "text", "name": name})
        sender.wake()


def seconds_waited(sender: Sender) -> float:
    """In vain."""
    begun = time.monotonic()
    assert not sender.wait(lambda: sender.done, PATIENCE)
    return time.monotonic() - begun


def test_everything_arrives_in_order_and_then_the_journal_goes(make: MakeSender, tmp_path: Path) -> None:
    store = FakeStore()
    sender = make(store)
    tell(sender, *"abcdef")
    assert sender.wait(lambda: sender.done, PATIENCE)
    assert store.got == ["", *"abcdef"]
    sender.close(remove=True)
    sender.join(PATIENCE)
    assert not sender.journal.path.exists()
    file = read_run_file(tmp_path)
    assert file is not None
    assert file.run_id == "run"


def test_an_outage_is_said_once_and_made_up_for(make: MakeSender, capsys: pytest.CaptureFixture[str]) -> None:
    store = FakeStore(up=False)
    sender = make(store)
    tell(sender, "a")
    assert seconds_waited(sender) < PATIENCE / 4  # an attempt failed: nobody waits for the next
    time.sleep(0.2)
    store.up = True
    eventually(lambda: sender.done)
    assert store.got == ["", "a"]
    said = capsys.readouterr().err
    assert said.count("[WARNING] MLflow: nobody there at https://me:***@host. Training goes on") == 1
    assert said.count("MLflow answers again") == 1
    assert "hunter2" not in said


def test_a_store_that_says_nothing_is_not_waited_for_twice(
    make: MakeSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(sender_module, "IMPATIENT_SECONDS", 0.0)
    store = FakeStore(hangs=threading.Event())
    sender = make(store)
    first, second = seconds_waited(sender), seconds_waited(sender)
    assert second < 1 <= first < PATIENCE / 4


def test_one_line_that_is_not_taken_holds_up_no_other(
    make: MakeSender, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = FakeStore(refuses="never", chokes="big")
    sender = make(store)
    for op, name in (("other", "a"), ("text", "never"), ("file", "big"), ("text", "c")):
        sender.journal.add({"op": op, "name": name})
    sender.wake()
    assert sender.wait(lambda: sender.done, PATIENCE)
    assert store.got == ["", "a", "c"]
    said = capsys.readouterr().err
    assert "MLflow did not take never: never" in said
    assert "MLflow did not take big: this one not" in said
    sender.close(remove=True)
    sender.join(PATIENCE)
    file = read_run_file(tmp_path)
    assert file is not None
    assert len(file.aside) == 1  # the refused one is not tried again
    assert sender.journal.path.exists()

    later = FakeStore()
    again = make(later, file)
    assert again.wait(lambda: again.done, PATIENCE)
    assert later.got == ["big"]
    assert not again.file.aside


def test_of_several_steps_in_one_request_only_the_wrong_one_is_lost(make: MakeSender) -> None:
    store = FakeStore(refuses="b", up=False)
    sender = make(store)
    tell(sender, "a", "b", "c")
    store.up = True
    eventually(lambda: sender.done)
    assert store.got == ["", "a", "c"]


def test_a_run_that_the_store_no_longer_has_is_sent_anew(make: MakeSender, tmp_path: Path) -> None:
    first = make(FakeStore())
    tell(first, "a", "b")
    assert first.wait(lambda: first.done, PATIENCE)
    first.close(remove=False)
    first.join(PATIENCE)
    file = read_run_file(tmp_path)
    assert file is not None

    class Emptied(FakeStore):
        def open(self, run_id: str, first: dict[str, Any]) -> str:
            assert run_id == "run"
            return "another"

    store = Emptied()
    second = make(store, file)
    tell(second, "c")
    assert second.wait(lambda: second.done, PATIENCE)
    assert store.got == ["", "a", "b", "c"]
    assert second.file.run_id == "another"
