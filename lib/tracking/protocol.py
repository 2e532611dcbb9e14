"""What a tracker is, none at all, and several as one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lib.lineage.record import StageRecord
from lib.settings import StageSettings
from lib.settings.errors import without_password, without_secrets


class Tracker(Protocol):
    """What a stage tells about itself while it runs."""

    @property
    def run_id(self) -> str: ...
    def settings(self, settings: StageSettings) -> None: ...
    def data(self, ledger: Mapping[str, Any], sources: Sequence[tuple[str, str, str]]) -> None: ...
    def tags(self, tags: Mapping[str, str]) -> None: ...
    def metrics(self, metrics: Mapping[str, float], step: int) -> None: ...
    def results(
        self, record: StageRecord, samples: Sequence[Mapping[str, Any]], files: Sequence[Path]
    ) -> None: ...
    def finish(self, status: str) -> None: ...


class NoTracker:
    """Says nothing: for ranks above 0, and when a store cannot be had."""

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


class Trackers:
    """Tells each of them in turn; the run is that of the first."""

    def __init__(self, *trackers: Tracker) -> None:
        self._trackers = trackers

    @property
    def run_id(self) -> str:
        return self._trackers[0].run_id

    def settings(self, settings: StageSettings) -> None:
        for tracker in self._trackers:
            tracker.settings(settings)

    def data(self, ledger: Mapping[str, Any], sources: Sequence[tuple[str, str, str]]) -> None:
        for tracker in self._trackers:
            tracker.data(ledger, sources)

    def tags(self, tags: Mapping[str, str]) -> None:
        for tracker in self._trackers:
            tracker.tags(tags)

    def metrics(self, metrics: Mapping[str, float], step: int) -> None:
        for tracker in self._trackers:
            tracker.metrics(metrics, step)

    def results(
        self, record: StageRecord, samples: Sequence[Mapping[str, Any]], files: Sequence[Path]
    ) -> None:
        for tracker in self._trackers:
            tracker.results(record, samples, files)

    def finish(self, status: str) -> None:
        for tracker in self._trackers:
            tracker.finish(status)


class Quietly:
    """Calls what may fail in many ways (network, database, disk) and must not end a run; the first failure is
    said."""

    def __init__(self, store: str) -> None:
        self.store = store
        self.failures = 0

    def __call__(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as error:
            self.failures += 1
            if self.failures == 1:
                warn(self.store, error)


def warn(store: str, error: Exception) -> None:
    print(
        f"[WARNING] {store}: {first_line(error)}. Training goes on; what fails is not tracked.",
        file=sys.stderr,
    )


def first_line(error: Exception) -> str:
    """What went wrong, in at most 200 characters. Libraries quote addresses, which may carry a password."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return without_secrets(without_password(line), os.environ)[:200]
