"""Real MLflow stores that are locked, full, silent or gone: no time is lost and nothing that was told."""

import shutil
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eventually import PATIENCE, eventually
from test_tracker import with_store

from lib.lineage.record import TRACKING
from lib.tracking import mlflow_tracker, sender
from lib.tracking.left import send_left
from lib.tracking.tracker import track

STEPS = 5
BOUND = 12.0
"""Seconds that a stage may take, with a patience of one: two on an idle machine, a minute if it were to wait
for the store."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tried again soon. A store that answers has all its time: a busy machine is no outage."""
    monkeypatch.setattr(sender, "PAUSES", (0.2,))
    monkeypatch.setattr(sender, "SILENCE_SECONDS", PATIENCE)
    monkeypatch.setattr(mlflow_tracker, "FINISHED_SECONDS", PATIENCE)
    monkeypatch.setattr(mlflow_tracker, "ENDED_SECONDS", PATIENCE)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture
def impatient(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same course with shorter times: 20 seconds of silence are 1."""
    monkeypatch.setattr(sender, "SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(sender, "IMPATIENT_SECONDS", 0.5)


@pytest.fixture
def stage(curriculum: Any, new_store: Any) -> Any:
    curriculum.stage(1)
    return with_store(curriculum.surveyed(1), new_store.uri)


@pytest.fixture
def run(curriculum: Any, stage: Any) -> Callable[..., float]:
    """run(): a stage that tells its losses and finishes; the seconds that it took."""
    data = curriculum.prepared(stage)

    def timed(during: Callable[[], object] = lambda: None, stage: Any = stage) -> float:
        begun = time.monotonic()
        with track(stage, data, is_main=True) as tracker:
            for step in range(1, STEPS + 1):
                tracker.metrics({"loss": float(step)}, step=step)
            during()
        return time.monotonic() - begun

    return timed


def wanted() -> list[tuple[int, float]]:
    return [(step, float(step)) for step in range(1, STEPS + 1)]


def left(stage: Any) -> list[Path]:
    return sorted(stage.settings.stage_dir.glob("tracking-*.jsonl"))


def send_what_is_left(stage: Any) -> None:
    """As the next start of the complete stage does."""
    (stage.settings.stage_dir / "stage.json").touch()
    send_left(stage.settings.stage_dir, stage.settings.tracking)


def assert_all_is_there(store: Any, status: str = "FINISHED") -> None:
    (found,) = store.runs()
    assert found.info.status == status
    assert store.points(found.info.run_id) == wanted()
    assert found.data.params["SFT_SEED"] == "3407"
    assert "ledger.json" in {artifact.path for artifact in store.client.list_artifacts(found.info.run_id)}


@pytest.mark.usefixtures("impatient")
def test_a_database_that_somebody_has_locked(run: Callable[..., float], stage: Any, new_store: Any) -> None:
    lock = new_store.locked()
    assert run() < BOUND
    (kept,) = left(stage)
    lock.rollback()
    lock.close()
    send_what_is_left(stage)
    # The thread of the run itself may have been quicker.
    eventually(lambda: not left(stage))
    assert_all_is_there(new_store)
    assert not kept.exists()


def test_a_lock_that_goes_away_in_time(run: Callable[..., float], stage: Any, new_store: Any) -> None:
    lock = new_store.locked()

    def unlock() -> None:
        time.sleep(0.5)
        lock.rollback()

    run(unlock)
    assert_all_is_there(new_store)
    assert left(stage) == []


@pytest.mark.usefixtures("impatient")
def test_a_database_that_takes_no_writes(
    run: Callable[..., float], stage: Any, new_store: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """SQLite can read it, but cannot make its rollback journal: as on a full or read-only disk."""
    sqlite3.connect(new_store.path).execute("PRAGMA journal_mode=DELETE").fetchall()
    obstacle = new_store.path.with_name("mlflow.db-journal")
    obstacle.mkdir()
    assert run() < BOUND
    said = capsys.readouterr().err
    assert said.count("[WARNING] MLflow: ") == 1
    assert "Traceback" not in said
    obstacle.rmdir()
    send_what_is_left(stage)
    eventually(lambda: not left(stage))
    assert_all_is_there(new_store)


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://me:hunter2canary@127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.usefixtures("impatient")
def test_a_server_that_never_answers(
    run: Callable[..., float], stage: Any, silent_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(stage=with_store(stage, silent_server)) < BOUND
    said = capsys.readouterr().err
    assert said.count("[WARNING] MLflow: ") == 1
    assert "hunter2canary" not in said
    (kept,) = left(stage)
    assert "hunter2canary" not in kept.read_text() + (kept.parent / TRACKING).read_text()


def test_a_run_that_goes_on_is_one_run_without_a_step_twice(
    curriculum: Any, stage: Any, new_store: Any
) -> None:
    """Its process died after step 3; what it had written down of step 4 was cut off."""
    data = curriculum.prepared(stage)
    died = mlflow_tracker.open_tracker(stage.settings)
    died.settings(stage.settings)
    for step in (1, 2, 3):
        died.metrics({"loss": float(step)}, step=step)
    run_id = died.run_id
    die(died)
    (journal,) = left(stage)
    with journal.open("ab") as file:
        file.write(b'{"op": "metrics", "step": 4, "val')
    assert new_store.runs()[0].info.status == "RUNNING"

    with track(stage, data, is_main=True) as tracker:
        assert tracker.run_id == run_id
        for step in (3, 4, 5):
            tracker.metrics({"loss": float(step)}, step=step)
    assert_all_is_there(new_store)
    assert new_store.runs()[0].data.tags["curriculum.resumed"] == "1"


def test_a_run_that_is_begun_anew_marks_the_dead_one(
    run: Callable[..., float], stage: Any, new_store: Any
) -> None:
    died = mlflow_tracker.open_tracker(stage.settings)
    died.metrics({"loss": 9.0}, step=1)
    dead_run = died.run_id
    die(died)
    (stage.settings.stage_dir / TRACKING).unlink()  # as a stage that begins anew does
    run()
    eventually(lambda: not left(stage))
    new, dead = new_store.runs()
    assert (dead.info.run_id, dead.info.status) == (dead_run, "KILLED")
    assert new_store.points(dead_run) == [(1, 9.0)]
    assert (new.info.status, new_store.points(new.info.run_id)) == ("FINISHED", wanted())


def test_a_process_that_died_in_its_last_words(stage: Any, new_store: Any) -> None:
    """The record stands, the store was never told of the end."""
    died = mlflow_tracker.open_tracker(stage.settings)
    run_id = died.run_id
    die(died)
    send_what_is_left(stage)
    (found,) = new_store.runs()
    assert (found.info.run_id, found.info.status) == (run_id, "FINISHED")
    assert left(stage) == []


def test_another_store_gets_the_whole_run(curriculum: Any, stage: Any, new_store: Any) -> None:
    elsewhere = with_store(stage, "http://127.0.0.1:9")
    died = mlflow_tracker.open_tracker(elsewhere.settings)
    for step in (1, 2, 3):
        died.metrics({"loss": float(step)}, step=step)
    die(died)
    with track(stage, curriculum.prepared(stage), is_main=True) as tracker:
        for step in (4, 5):
            tracker.metrics({"loss": float(step)}, step=step)
    (found,) = new_store.runs()
    assert new_store.points(found.info.run_id) == wanted()


@pytest.mark.parametrize(
    ("line", "content"), [(0, b"\x00garbage"), (2, b"[]"), (-2, b'{"op": "metrics", "time": 1}')]
)
def test_a_damaged_journal_stops_nothing(
    curriculum: Any, stage: Any, new_store: Any, line: int, content: bytes
) -> None:
    """A line of the run's own, and of the journal of another run that nobody goes on with."""
    died = mlflow_tracker.open_tracker(stage.settings)
    for step in (1, 2, 3):
        died.metrics({"loss": float(step)}, step=step)
    die(died)
    (journal,) = left(stage)
    lines = journal.read_bytes().split(b"\n")
    lines[line] = content
    journal.write_bytes(b"\n".join(lines))
    shutil.copy(journal, journal.with_name("tracking-other.jsonl"))
    with track(stage, curriculum.prepared(stage), is_main=True) as tracker:
        for step in range(1, STEPS + 1):
            tracker.metrics({"loss": float(step)}, step=step)
    found = [run for run in new_store.runs() if run.info.status == "FINISHED"]
    # What a damaged line told is not known: it may be told again.
    assert [sorted(set(new_store.points(run.info.run_id))) for run in found] == [wanted()]


@pytest.mark.parametrize("content", ['{"run_id": 5}', None])
def test_a_damaged_tracking_file_stops_nothing(
    run: Callable[..., float], stage: Any, new_store: Any, content: str | None
) -> None:
    died = mlflow_tracker.open_tracker(stage.settings)
    die(died)
    path = stage.settings.stage_dir / TRACKING
    path.write_text(path.read_text().replace('"tracking-', '"../tracking-') if content is None else content)
    run()
    assert new_store.points(new_store.runs()[0].info.run_id) == wanted()


def die(tracker: Any) -> None:
    """What is left of a process that is gone: its files, no thread that writes, no lock."""
    tracker._system.stop()
    sent = tracker._sender.wait(lambda: tracker._sender.done, PATIENCE)
    tracker._sender._keep = lambda file: None
    tracker._sender.close(remove=False)
    tracker._sender.join(PATIENCE if sent else 2.0)
    tracker._journal.close()


def test_other_experiments_are_other_runs(stage: Any, run: Callable[..., float], new_store: Any) -> None:
    run()
    tracking = replace(stage.settings.tracking, experiment="other")
    other = replace(stage, settings=replace(stage.settings, tracking=tracking))
    run(stage=other)
    assert len(new_store.runs()) == len(new_store.runs("other")) == 1
