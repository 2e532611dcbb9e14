"""TensorBoard's files beside MLflow's run."""

from pathlib import Path
from typing import Any

import pytest

from lib.lineage.completion import TENSORBOARD
from lib.tracking.journal import Told
from lib.tracking.protocol import NoTracker, Trackers
from lib.tracking.tensorboard import TensorBoardTracker
from lib.tracking.tracker import track


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_both_are_told(curriculum: Any, new_store: Any) -> None:
    curriculum.stage(1, SFT_TENSORBOARD=1, MLFLOW_TRACKING_URI=new_store.uri)
    stage = curriculum.surveyed(1)
    with track(stage, curriculum.prepared(stage), is_main=True) as tracker:
        assert tracker.run_id
        tracker.metrics({"loss": 2.0, "note": "no number"}, step=1)  # type: ignore[dict-item]
        tracker.metrics({"loss": 1.5, "eval_loss": 1.75}, step=2)
        tracker.results(curriculum.record(stage), [], [])
    written = scalars(stage.settings.stage_dir / TENSORBOARD)
    assert written["loss"] == [(1, 2.0), (2, 1.5)]
    assert written["eval_loss"] == [(2, 1.75)]
    assert written["final/gen_parse_rate"] == [(5, 0.5)]
    assert "note" not in written


def test_without_being_asked_for_there_are_none(curriculum: Any, new_store: Any) -> None:
    curriculum.stage(1, MLFLOW_TRACKING_URI=new_store.uri)
    stage = curriculum.surveyed(1)
    with track(stage, curriculum.prepared(stage), is_main=True) as tracker:
        tracker.metrics({"loss": 2.0}, step=1)
    assert not (stage.settings.stage_dir / TENSORBOARD).exists()


def test_a_writer_that_breaks_warns_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = TensorBoardTracker(tmp_path, Told())

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    tracker._writer.add_scalar = full
    for step in range(3):
        tracker.metrics({"loss": 1.0}, step=step)
    tracker.finish("FINISHED")
    warned = capsys.readouterr().err
    assert warned.count("[WARNING] TensorBoard: ") == 1
    assert "No space left" in warned


def test_the_run_is_that_of_the_first(tmp_path: Path) -> None:
    first = NoTracker()
    first.run_id = "run"
    assert Trackers(first, TensorBoardTracker(tmp_path, Told())).run_id == "run"
