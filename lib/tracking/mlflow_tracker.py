"""A stage as a run of MLflow."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lib.lineage.record import RECORD, StageRecord
from lib.settings import StageSettings, TrackingSettings
from lib.tracking.contents import NOT_LOGGED, closing_metrics, env_text
from lib.tracking.protocol import Quietly


class MlflowTracker:
    """Writes one run of the MLflow store named by the stage's settings."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._quietly = Quietly("MLflow")

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

        for metrics, step in closing_metrics(record):
            self.metrics(metrics, step)
        self._quietly(lambda: mlflow.log_dict(record.data["ledger"], "ledger.json"))
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


def sample_columns(samples: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The answers as MLflow's table: one column a field, the verdict as JSON."""
    return {
        name: [
            value if isinstance(value := sample[name], str) else json.dumps(value, ensure_ascii=False)
            for sample in samples
        ]
        for name in ("row", "prompt", "reference", "answer", "labels", "verdict")
    }


def start_run(tracking: TrackingSettings, name: str) -> str:
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
