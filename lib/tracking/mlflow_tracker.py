"""A stage as a run of MLflow: everything is written into a journal, which another thread sends."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from lib.lineage.record import RECORD, StageRecord
from lib.settings import StageSettings, TrackingSettings
from lib.settings.errors import without_password
from lib.tracking.contents import NOT_LOGGED, closing_metrics, env_text
from lib.tracking.journal import Journal, Told, whole_entries
from lib.tracking.mlflow_store import MlflowStore, is_refused, load_mlflow
from lib.tracking.protocol import Quietly
from lib.tracking.run_file import RunFile, read_run_file
from lib.tracking.sender import Sender
from lib.tracking.system_metrics import SystemMetrics
from lib.training.numerics.bad_batches import BAD_BATCHES

FINISHED_SECONDS, ENDED_SECONDS = 60.0, 10.0
"""How long the end of a stage may wait for a store that answers; of one that was interrupted or failed."""
TABLE_COLUMNS = ("row", "prompt", "reference", "answer", "labels", "verdict")


class MlflowTracker:
    """Tells the journal, and now and then waits for the sender. Nothing here raises."""

    def __init__(self, sender: Sender, told: Told) -> None:
        self._sender, self._journal = sender, sender.journal
        self._told = told
        self._quietly = Quietly("MLflow's journal")
        self._system = SystemMetrics(self.metrics, told.next_step("system/"))
        sender.start()
        self._system.start()

    @property
    def run_id(self) -> str:
        """Empty as long as no store has given it one."""
        self._sender.wait(lambda: self._sender.opened, FINISHED_SECONDS)
        return self._sender.file.run_id

    def settings(self, settings: StageSettings) -> None:
        shown = {key: value for key, value in settings.values.items() if key not in NOT_LOGGED}
        origins = {key: settings.origins[key] for key in shown}
        params = self._told.new_params({key: value for key, value in shown.items() if value})
        if params:
            self._tell("params", values=params)
        self._text("settings.json", _json({"values": shown, "origins": origins}))
        self._text(settings.env_file.name, env_text(settings))

    def data(self, ledger: Mapping[str, Any], sources: Sequence[tuple[str, str, str]]) -> None:
        """`sources`: (id, split, fingerprint) of every data set that was read."""
        self._tell("inputs", sources=sources)
        self._text("ledger.json", _json(ledger))

    def tags(self, tags: Mapping[str, str]) -> None:
        self._tell("tags", values=dict(tags))

    def metrics(self, metrics: Mapping[str, float], step: int) -> None:
        numbers = self._told.new_metrics(metrics, step)
        if numbers:
            self._tell("metrics", step=step, values=numbers)

    def results(
        self, record: StageRecord, samples: Sequence[Mapping[str, Any]], files: Sequence[Path]
    ) -> None:
        """The scores before (step 0) and after, the realised mix, what earlier stages kept, the answers as a
        table, the whole record, and the files that are there."""
        for metrics, step in closing_metrics(record):
            self.metrics(metrics, step)
        self._text("ledger.json", _json(record.data["ledger"]))
        if samples:
            self._tell("table", name="samples.json", columns=sample_columns(samples))
        self._text(RECORD, _json(asdict(record)))
        for path in files:
            self._tell("file", path=str(path.resolve()))

    def finish(self, status: str) -> None:
        """Sent or not, the stage ends: what is left is sent by the next stage, or at the next start."""
        finished = status == "FINISHED"
        self._system.stop()
        if not finished:
            self._tell("file", path=str((self._journal.path.parent / BAD_BATCHES).resolve()))
        self._tell("finish", status=status)
        self._sender.wait(lambda: self._sender.done, FINISHED_SECONDS if finished else ENDED_SECONDS)
        self._sender.close(remove=finished)
        self._sender.join(1.0)

    def _text(self, name: str, text: str) -> None:
        self._tell("text", name=name, text=text)

    def _tell(self, op: str, **content: Any) -> None:
        self._quietly(lambda: self._journal.add({"op": op, **content}))
        self._sender.wake()


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, default=str)


def sample_columns(samples: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The answers as MLflow's table: one column a field, the verdict as JSON."""
    return {
        name: [
            value if isinstance(value := sample[name], str) else json.dumps(value, ensure_ascii=False)
            for sample in samples
        ]
        for name in TABLE_COLUMNS
    }


def open_tracker(settings: StageSettings) -> MlflowTracker:
    """The run that the stage's folder names goes on, else there is a new one. Raises OSError where no journal
    can be written."""
    load_mlflow()
    settings.stage_dir.mkdir(parents=True, exist_ok=True)
    file, journal = _continued(settings) or _begun(settings)
    told = Told(journal.entries())
    return MlflowTracker(sender_of(settings.tracking.uri, file, journal), told)


def told_before(stage_dir: Path) -> Told:
    """What an earlier part of the stage's run has told already."""
    file = read_run_file(stage_dir)
    path = stage_dir / file.journal if file else None
    try:
        return Told(whole_entries(path)) if path else Told()
    except OSError:
        return Told()


def sender_of(uri: str, file: RunFile, journal: Journal, *, keeps: bool = True) -> Sender:
    """`keeps`: whether `tracking.json` of the folder is this run's."""
    store = MlflowStore(uri, file.experiment, file.journal)
    keep = partial(RunFile.write, stage_dir=journal.path.parent) if keeps else _forget
    return Sender(journal, file, store, keep=keep, refused=is_refused)


def _forget(file: RunFile) -> None:
    pass


def _begun(settings: StageSettings) -> tuple[RunFile, Journal]:
    tracking = settings.tracking
    journal = Journal(settings.stage_dir / f"tracking-{uuid4().hex[:12]}.jsonl")
    store = without_password(tracking.uri)
    name = f"stage {settings.stage}"
    journal.add({"op": "run", "name": name, "experiment": tracking.experiment, "store": store})
    file = RunFile("", tracking.experiment, store, journal.path.name)
    file.write(settings.stage_dir)
    return file, journal


def _continued(settings: StageSettings) -> tuple[RunFile, Journal] | None:
    """None where there is no run to go on with, or somebody has it."""
    file = read_run_file(settings.stage_dir)
    if file is None or not (settings.stage_dir / file.journal).is_file():
        return None
    try:
        journal = Journal(settings.stage_dir / file.journal)
    except BlockingIOError:
        return None
    if next(journal.entries(), {}).get("op") != "run":  # damaged: nobody knows which run it is
        journal.close()
        return None
    times = sum(entry["op"] == "resumed" for entry in journal.entries()) + 1
    journal.add({"op": "resumed", "times": times})
    return _moved(file, settings.tracking), journal


def _moved(file: RunFile, tracking: TrackingSettings) -> RunFile:
    """To another store or experiment the whole run goes anew."""
    place = (tracking.experiment, without_password(tracking.uri))
    if place == (file.experiment, file.store):
        return file
    return replace(file, experiment=place[0], store=place[1], run_id="", sent=0, aside=())
