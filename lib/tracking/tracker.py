"""One MLflow run per stage. Telemetry never stops a run and never sees a secret.

Only the trainer's own keys are logged (an allow-list), so a token in an env file or in the
environment cannot leak; the tracking address is left out because it may carry a password.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lib.lineage.record import RECORD, StageRecord
from lib.settings import StageSettings, TrackingSettings
from lib.settings.errors import without_password
from lib.tracking.mix_metrics import mix_metrics

if TYPE_CHECKING:
    from lib.data.prepare import PreparedData
    from lib.lineage.curriculum import SurveyedStage

NOT_LOGGED = frozenset({"MLFLOW_TRACKING_URI"})


class Tracker(Protocol):
    """What a stage tells about itself while it runs."""

    run_id: str

    def settings(self, settings: StageSettings) -> None: ...
    def data(self, ledger: Mapping[str, Any], sources: Sequence[tuple[str, str, str]]) -> None: ...
    def tags(self, tags: Mapping[str, str]) -> None: ...
    def metrics(self, metrics: Mapping[str, float], step: int) -> None: ...
    def results(
        self, record: StageRecord, samples: Sequence[Mapping[str, Any]], files: Sequence[Path]
    ) -> None: ...
    def finish(self, status: str) -> None: ...


class NoTracker:
    """Says nothing: for ranks above 0, and when MLflow cannot be had."""

    run_id = ""

    def settings(self, settings: StageSettings) -> None:
        pass

    def data(self, ledger: Mapping[str, Any], sources: Sequence[tuple[str, str, str]]) -> None:
        pass

    def tags(self, tags: Mapping[str, str]) -> None:
        pass

    def metrics(self, metrics: Mapping[str, float], step: int) -> None:
        pass

    def results(
        self, record: StageRecord, samples: Sequence[Mapping[str, Any]], files: Sequence[Path]
    ) -> None:
        pass

    def finish(self, status: str) -> None:
        pass


class MlflowTracker:
    """Writes one run of the MLflow store named by the stage's settings."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.failures = 0

    def settings(self, settings: StageSettings) -> None:
        import mlflow

        shown = {key: value for key, value in settings.values.items() if key not in NOT_LOGGED}
        origins = {key: settings.origins[key] for key in shown}
        self._quietly(lambda: mlflow.log_params({key: value[:6000] for key, value in shown.items() if value}))
        self._quietly(lambda: mlflow.log_dict({"values": shown, "origins": origins}, "settings.json"))
        self._quietly(lambda: mlflow.log_text(env_text(settings), settings.env_file.name))

    def data(self, ledger: Mapping[str, Any], sources: Sequence[tuple[str, str, str]]) -> None:
        import mlflow

        self._quietly(lambda: self._log_inputs(sources))
        self._quietly(lambda: mlflow.log_dict(dict(ledger), "ledger.json"))

    def tags(self, tags: Mapping[str, str]) -> None:
        import mlflow

        self._quietly(lambda: mlflow.set_tags(dict(tags)))

    def metrics(self, metrics: Mapping[str, float], step: int) -> None:
        import mlflow

        numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
        self._quietly(lambda: mlflow.log_metrics(numbers, step=step, run_id=self.run_id))

    def results(
        self, record: StageRecord, samples: Sequence[Mapping[str, Any]], files: Sequence[Path]
    ) -> None:
        """The scores before (step 0) and after, the realised mix, what earlier stages kept, the answers as a
        table, the whole record, and the files that are there."""
        import mlflow

        steps, after = record.training["steps"], record.evaluation["after"]["metrics"]
        logged = {
            name for entry in record.training["history"] if entry.get("step") == steps for name in entry
        }
        self.metrics(record.evaluation["before"]["metrics"], 0)
        # The weights that are kept may be those of an earlier step than the last that was scored.
        self.metrics({name: value for name, value in after.items() if name not in logged}, steps)
        self.metrics({f"final/{name}": value for name, value in after.items() if "/" not in name}, steps)
        self.metrics(mix_metrics(record.data["ledger"]), steps)
        self._quietly(lambda: mlflow.log_dict(record.data["ledger"], "ledger.json"))
        for entry in record.evaluation["retention"]:
            if entry["now"] is not None:
                self.metrics({f"retention/stage{entry['stage']}/{entry['headline']}": entry["now"]}, steps)
        if samples:
            self._quietly(lambda: mlflow.log_table(sample_columns(samples), "samples.json"))
        self._quietly(lambda: mlflow.log_dict(asdict(record), RECORD))
        for path in files:
            self._quietly(lambda path=path: mlflow.log_artifact(str(path)))  # type: ignore[misc]

    def finish(self, status: str) -> None:
        import mlflow

        self._quietly(lambda: mlflow.end_run(status))

    def _log_inputs(self, sources: Sequence[tuple[str, str, str]]) -> None:
        """`sources`: (id, split, fingerprint) of every data set that was read."""
        import mlflow
        from mlflow.data.huggingface_dataset_source import HuggingFaceDatasetSource
        from mlflow.data.meta_dataset import MetaDataset
        from mlflow.data.sources import LocalArtifactDatasetSource

        for name, split, fingerprint in sources:
            path = Path(name).expanduser()
            source = (
                LocalArtifactDatasetSource(path.resolve().as_uri())
                if path.exists()
                else HuggingFaceDatasetSource(path=name, split=split)
            )
            dataset = MetaDataset(source=source, name=path.name, digest=fingerprint[:32])
            mlflow.log_input(dataset, context=f"training/{split}")

    def _quietly(self, call: Callable[[], Any]) -> None:
        """MLflow raises many kinds of errors (network, database, disk): none may end a run."""
        try:
            call()
        except Exception as error:
            self.failures += 1
            if self.failures == 1:
                _warn(error)


@contextmanager
def track(stage: SurveyedStage, data: PreparedData, *, is_main: bool) -> Iterator[Tracker]:
    """A running MLflow run of `stage` that knows its settings and data; NoTracker where there is
    nothing to write or no way to.

    The run ends as FINISHED, KILLED (interrupted) or FAILED, as the block ends.
    """
    settings = stage.settings
    tracker = _open(settings.tracking, f"stage {settings.stage}") if is_main else NoTracker()
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


def sample_columns(samples: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The answers as MLflow's table: one column a field, the verdict as JSON."""
    return {
        name: [
            value if isinstance(value := sample[name], str) else json.dumps(value, ensure_ascii=False)
            for sample in samples
        ]
        for name in ("row", "prompt", "reference", "answer", "labels", "verdict")
    }


def lineage_tags(stage: SurveyedStage) -> dict[str, str]:
    """Tags that tie the runs of one curriculum together."""
    settings = stage.settings
    records = [parent.record for parent in stage.chain.parents if parent.record]
    return {
        "curriculum": settings.output.name,
        "curriculum.stage": str(settings.stage),
        "curriculum.base_model": settings.model.base_model,
        "curriculum.base_key": stage.chain.key,
        "curriculum.parent_runs": ",".join(
            record.mlflow_run_id for record in records if record.mlflow_run_id
        ),
    }


def _open(tracking: TrackingSettings, name: str) -> Tracker:
    try:
        return MlflowTracker(_start_run(tracking, name))
    except Exception as error:  # see MlflowTracker._quietly
        _warn(error)
        return NoTracker()


def _start_run(tracking: TrackingSettings, name: str) -> str:
    import logging

    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # its import sets INFO
    # MLflow tries to import Spark at every call, on two threads. An interrupt in the middle of that leaves
    # the import's lock taken, and the run never ends: where Spark is not installed, nothing is tried.
    if importlib.util.find_spec("pyspark") is None:
        sys.modules.setdefault("pyspark.sql", None)  # type: ignore[arg-type]
    _set_address(tracking.uri)
    artifacts = None
    if tracking.uri.startswith("sqlite:///"):
        store = Path(tracking.uri.removeprefix("sqlite:///")).resolve().parent
        store.mkdir(parents=True, exist_ok=True)
        artifacts = (store / "artifacts").as_uri()
    experiment = mlflow.get_experiment_by_name(tracking.experiment)
    identifier = (
        experiment.experiment_id
        if experiment
        else mlflow.create_experiment(tracking.experiment, artifact_location=artifacts)
    )
    run = mlflow.start_run(experiment_id=identifier, run_name=name, log_system_metrics=True)
    return str(run.info.run_id)


def _set_address(uri: str) -> None:
    """MLflow exports the address to the environment, where the next stage of the same command would
    take it for the user's own: what stood there is put back."""
    import mlflow

    exported = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    if exported is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    else:
        os.environ["MLFLOW_TRACKING_URI"] = exported


def env_text(settings: StageSettings) -> str:
    """The stage's env file as it took effect: the trainer's own keys only, without comments."""
    lines = [
        f"{key}='{value}'"
        for key, value in settings.values.items()
        if settings.origins[key] != "default" and key not in NOT_LOGGED
    ]
    return (
        "\n".join([f"# {settings.env_file.name}: keys that were set, wherever they were set", *lines]) + "\n"
    )


def _warn(error: Exception) -> None:
    # A tracking server's address may carry a password, and MLflow quotes it.
    first_line = without_password((str(error).splitlines() or [type(error).__name__])[0])[:200]
    print(f"[WARNING] MLflow: {first_line}. Training goes on; what fails is not tracked.", file=sys.stderr)
