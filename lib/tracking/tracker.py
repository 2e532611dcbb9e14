"""One MLflow run per stage, and TensorBoard's files where asked for.

Telemetry never stops a run and never sees a secret.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lib.tracking.contents import lineage_tags
from lib.tracking.mlflow_tracker import MlflowTracker, start_run
from lib.tracking.protocol import NoTracker, Tracker, Trackers, warn
from lib.tracking.tensorboard import TensorBoardTracker

if TYPE_CHECKING:
    from lib.data.prepare import PreparedData
    from lib.lineage.curriculum import SurveyedStage


@contextmanager
def track(stage: SurveyedStage, data: PreparedData, *, is_main: bool) -> Iterator[Tracker]:
    """A running MLflow run of `stage` that knows its settings and data, and TensorBoard's files where asked
    for; NoTracker where there is nothing to write or no way to.

    The run ends as FINISHED, KILLED (interrupted) or FAILED, as the block ends.
    """
    settings = stage.settings
    tracker = _open(stage) if is_main else NoTracker()
    tracker.settings(settings)
    tracker.tags(lineage_tags(stage))
    tracker.data(
        data.ledger.to_json(), [(source.id, source.split, source.fingerprint) for source in data.sources]
    )
    try:
        yield tracker
    except KeyboardInterrupt:
        tracker.finish("KILLED")
        raise
    except BaseException:
        tracker.finish("FAILED")
        raise
    tracker.finish("FINISHED")


def _open(stage: SurveyedStage) -> Tracker:
    settings = stage.settings
    mlflow = _or_none(
        "MLflow", lambda: MlflowTracker(start_run(settings.tracking, f"stage {settings.stage}"))
    )
    if not settings.tracking.tensorboard:
        return mlflow
    return Trackers(mlflow, _or_none("TensorBoard", lambda: TensorBoardTracker(settings.stage_dir)))


def _or_none(store: str, open_tracker: Callable[[], Tracker]) -> Tracker:
    try:
        return open_tracker()
    except Exception as error:  # see Quietly
        warn(store, error)
        return NoTracker()
