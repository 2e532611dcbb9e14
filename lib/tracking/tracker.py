"""One MLflow run per stage, and TensorBoard's files where asked for.

Telemetry never stops a run and never sees a secret.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lib.tracking.contents import lineage_tags
from lib.tracking.left import begin_sending
from lib.tracking.mlflow_tracker import open_tracker, told_before
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
    if is_main:
        begin_sending(
            [*(parent.folder for parent in stage.chain.parents), settings.stage_dir], settings.tracking
        )
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
    told = told_before(settings.stage_dir)
    mlflow = _or_none("MLflow", lambda: open_tracker(settings))
    if not settings.tracking.tensorboard:
        return mlflow
    return Trackers(mlflow, _or_none("TensorBoard", lambda: TensorBoardTracker(settings.stage_dir, told)))


def _or_none(store: str, open_tracker: Callable[[], Tracker]) -> Tracker:
    try:
        return open_tracker()
    except Exception as error:  # see Quietly
        warn(store, error)
        return NoTracker()
