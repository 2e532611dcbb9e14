"""One run of an MLflow store: the lines of a journal as calls of MLflow's client.

Every call may be repeated without leaving anything twice. All of them are made by one thread.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.tracking.journal import Entry

JOURNAL_TAG = "curriculum.journal"
ALIVE_TAG = "curriculum.alive"
METRICS_AT_ONCE, PARAMS_AT_ONCE, LONGEST_PARAM = 900, 90, 6000
"""MLflow takes 1,000 metrics and 100 params a request, and 6,000 characters a param."""
CLOCK_MILLISECONDS = 1000
"""By which the clock of a file system may be ahead."""
REQUEST_SECONDS = 10
REFUSED = frozenset({"INVALID_PARAMETER_VALUE"})
"""Codes of what no store will ever take."""


class MlflowStore:
    """`journal` names the run to be, so that it is found again if its id was not kept."""

    def __init__(self, uri: str, experiment: str, journal: str) -> None:
        self.uri, self.experiment, self.journal = uri, experiment, journal
        self.run_id = ""
        self._client: Any = None

    @property
    def is_new(self) -> bool:
        """A database that is not there yet: making its tables takes a while."""
        local = local_database(self.uri)
        return local is not None and not local.exists()

    def open(self, run_id: str, first: Entry) -> str:
        """The id of the run: `run_id` if the store knows it, else that of the journal, else of a new one.

        `first` is the journal's first line.
        """
        from mlflow.tracking import MlflowClient

        if self._client is None:
            local = local_database(self.uri)
            if local is not None:
                local.parent.mkdir(parents=True, exist_ok=True)
            self._client = MlflowClient(tracking_uri=self.uri)
        self.run_id = self._known(run_id) or self._of_journal() or self._create(first)
        return self.run_id

    def _known(self, run_id: str) -> str:
        from mlflow.exceptions import MlflowException

        try:
            return str(self._client.get_run(run_id).info.run_id) if run_id else ""
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return ""
            raise

    def _of_journal(self) -> str:
        found = self._client.search_runs([self._experiment()], f"tags.`{JOURNAL_TAG}` = '{self.journal}'")
        return str(found[0].info.run_id) if found else ""

    def _create(self, first: Entry) -> str:
        from mlflow.tracking.context.registry import resolve_tags

        tags = {**resolve_tags(), JOURNAL_TAG: self.journal}
        run = self._client.create_run(
            self._experiment(), start_time=first["time"], tags=tags, run_name=first["name"]
        )
        return str(run.info.run_id)

    def _experiment(self) -> str:
        experiment = self._client.get_experiment_by_name(self.experiment)
        if experiment:
            return str(experiment.experiment_id)
        local = local_database(self.uri)
        artifacts = (local.parent / "artifacts").as_uri() if local else None
        return str(self._client.create_experiment(self.experiment, artifact_location=artifacts))

    def answers(self) -> bool:
        """Whether the store can be written to at all."""
        try:
            self._client.set_tag(self.run_id, ALIVE_TAG, "1")
        except Exception:  # whatever it is, it is not what the line before was refused for
            return False
        return True

    def send(self, entries: Sequence[Entry]) -> None:
        """Lines of one kind."""
        getattr(self, f"_send_{entries[0]['op']}")(entries)

    def _send_run(self, entries: Sequence[Entry]) -> None:
        """It has been opened."""

    def _send_damaged(self, entries: Sequence[Entry]) -> None:
        """Nobody knows what it told."""

    def _send_resumed(self, entries: Sequence[Entry]) -> None:
        self._client.update_run(self.run_id, status="RUNNING")
        self._client.set_tag(self.run_id, "curriculum.resumed", str(entries[-1]["times"]))

    def _send_metrics(self, entries: Sequence[Entry]) -> None:
        from mlflow.entities import Metric

        found = [
            Metric(name, value, entry["time"], entry["step"])
            for entry in entries
            for name, value in entry["values"].items()
        ]
        for first in range(0, len(found), METRICS_AT_ONCE):
            self._client.log_batch(self.run_id, metrics=found[first : first + METRICS_AT_ONCE])

    def _send_params(self, entries: Sequence[Entry]) -> None:
        from mlflow.entities import Param

        found = [
            Param(key, value[:LONGEST_PARAM]) for entry in entries for key, value in entry["values"].items()
        ]
        for first in range(0, len(found), PARAMS_AT_ONCE):
            self._client.log_batch(self.run_id, params=found[first : first + PARAMS_AT_ONCE])

    def _send_tags(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            for key, value in entry["values"].items():
                self._client.set_tag(self.run_id, key, value)

    def _send_inputs(self, entries: Sequence[Entry]) -> None:
        """The data sets that were read."""
        for entry in entries:
            self._client.log_inputs(self.run_id, [_input(*source) for source in entry["sources"]])

    def _send_text(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._client.log_text(self.run_id, entry["text"], entry["name"])

    def _send_table(self, entries: Sequence[Entry]) -> None:
        """What MLflow's `log_table` writes; that one would add to a table that is there."""
        for entry in entries:
            columns = entry["columns"]
            table = {
                "columns": list(columns),
                "data": [list(row) for row in zip(*columns.values(), strict=True)],
            }
            self._client.log_text(self.run_id, json.dumps(table, ensure_ascii=False), entry["name"])
            shown = [{"path": entry["name"], "type": "table"}]
            self._client.set_tag(self.run_id, "mlflow.loggedArtifacts", json.dumps(shown))

    def _send_file(self, entries: Sequence[Entry]) -> None:
        """A file that is gone or was written since belongs to a stage that was begun anew."""
        for entry in entries:
            path = Path(entry["path"])
            if path.is_file() and path.stat().st_mtime * 1000 < entry["time"] + CLOCK_MILLISECONDS:
                self._client.log_artifact(self.run_id, str(path))

    def _send_finish(self, entries: Sequence[Entry]) -> None:
        last = entries[-1]
        self._client.set_terminated(self.run_id, last["status"], end_time=last["time"])


def is_refused(error: Exception) -> bool:
    return getattr(error, "error_code", "") in REFUSED


def _input(name: str, split: str, fingerprint: str) -> Any:
    from mlflow.data.huggingface_dataset_source import HuggingFaceDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.data.sources import LocalArtifactDatasetSource
    from mlflow.entities import DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    path = Path(name).expanduser()
    source = (
        LocalArtifactDatasetSource(path.resolve().as_uri())
        if path.exists()
        else HuggingFaceDatasetSource(path=name, split=split)
    )
    dataset = MetaDataset(source=source, name=path.name, digest=fingerprint[:32])
    return DatasetInput(dataset._to_mlflow_entity(), [InputTag(MLFLOW_DATASET_CONTEXT, f"training/{split}")])


def local_database(uri: str) -> Path | None:
    """The file of a SQLite store."""
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None


def load_mlflow() -> None:
    """Import it, on the calling thread, with bounded requests and without its chatter: what fails is said and
    repeated by us, not by its client."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_SECONDS))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow  # noqa: F401  (its import sets up its logger)

    for chatty in ("mlflow", "urllib3.connectionpool"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    # MLflow tries to import Spark at every call, on two threads. An interrupt in the middle of that leaves
    # the import's lock taken, and the run never ends: where Spark is not installed, nothing is tried.
    if importlib.util.find_spec("pyspark") is None:
        sys.modules.setdefault("pyspark.sql", None)  # type: ignore[arg-type]
