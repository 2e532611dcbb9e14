"""Sends a journal in the background, for as long as it takes and without keeping anybody waiting."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from lib.tracking.journal import Entry, Journal, Line
from lib.tracking.protocol import first_line
from lib.tracking.run_file import RunFile

PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before a failed attempt is repeated; the last one from then on."""
LINES_AT_ONCE = 500
KEEP_SECONDS = 2.0
"""How often `tracking.json` is written while all goes well."""
SILENCE_SECONDS, NEW_STORE_SECONDS = 20.0, 120.0
"""Without any answer for so long nobody waits any longer; a new database has its tables to make."""
IMPATIENT_SECONDS = 5.0
"""Once it was waited for in vain."""


class Store(Protocol):
    @property
    def is_new(self) -> bool: ...
    def open(self, run_id: str, first: Entry) -> str: ...
    def answers(self) -> bool: ...
    def send(self, entries: list[Entry]) -> None: ...


class Sender(threading.Thread):
    """Everything that the journal holds after `file.sent`, then whatever is added to it.

    It is a daemon: a store that never answers does not keep the process alive. `keep` is told how far it is.
    """

    def __init__(
        self,
        journal: Journal,
        file: RunFile,
        store: Store,
        *,
        keep: Callable[[RunFile], None],
        refused: Callable[[Exception], bool],
    ) -> None:
        super().__init__(name=f"tracking {journal.path.name}", daemon=True)
        self.journal, self.file = journal, file
        self._store, self._keep, self._refused = store, keep, refused
        self._patience = NEW_STORE_SECONDS if store.is_new else SILENCE_SECONDS
        self._changed = threading.Condition()
        self._failed_attempts, self._in_a_row = 0, 0
        self._opened = self._closing = self._remove = self._urgent = False
        self._progress, self._kept = time.monotonic(), 0.0

    @property
    def opened(self) -> bool:
        """Whether the run is there; only then `file.run_id` is known to be its id."""
        return self._opened

    @property
    def done(self) -> bool:
        """Whether the store has everything that it takes."""
        return self._opened and self.file.sent >= self.journal.size

    def wake(self) -> None:
        """There is something new in the journal."""
        with self._changed:
            self._changed.notify_all()

    def wait(self, done: Callable[[], bool], seconds: float) -> bool:
        """Until `done`; False once an attempt fails, nothing is heard for too long, or time is up."""
        with self._changed:
            self._urgent = True  # one more attempt, now
            self._changed.notify_all()
            failed, begun = self._failed_attempts, time.monotonic()
            while not done():
                now = time.monotonic()
                silent = now - max(begun, self._progress) > self._patience
                if silent:
                    self._patience = IMPATIENT_SECONDS
                if silent or now - begun > seconds or self._failed_attempts > failed:
                    return False
                self._changed.wait(0.1)
        return True

    def close(self, *, remove: bool) -> None:
        """Nothing will be added. Until everything is sent it is tried; then the journal may go, or it is kept
        for a run that goes on."""
        with self._changed:
            self._closing, self._remove, self._urgent = True, remove, True
            self._changed.notify_all()

    def run(self) -> None:
        while not (self._closing and self.done):
            try:
                self._send_what_is_there()
            except Exception as error:  # network, database, disk: all are tried again
                self._failed(error)
            with self._changed:
                self._changed.notify_all()
                if self._in_a_row:
                    pause = PAUSES[min(self._in_a_row, len(PAUSES)) - 1]
                    self._changed.wait_for(lambda: self._urgent, pause)
                    self._urgent = False
                elif self.done and not self._closing:
                    self._changed.wait()
        if self._remove and not self.file.aside:
            self.journal.remove()
        self.journal.close()

    def _send_what_is_there(self) -> None:
        if not self._opened:
            self._open()
        for lines in _groups(itertools.islice(self.journal.after(self.file.sent), LINES_AT_ONCE)):
            kept = [] if self._sent(lines) else [(lines[0].start, lines[-1].end)]
            self._set(sent=lines[-1].end, aside=[*self.file.aside, *kept])
            self._heard()
        if self.done:
            self._keep_now()

    def _open(self) -> None:
        """A run that the store does not know is a new one, and gets everything."""
        first = next(self.journal.entries())
        run_id = self._store.open(self.file.run_id, first)
        if run_id != self.file.run_id:
            self.file = replace(self.file, run_id=run_id, sent=0, aside=())
        # What was put aside may be taken now.
        self.file = replace(self.file, aside=[span for span in self.file.aside if not self._taken(*span)])
        self._opened = True
        self._keep_now()
        self._heard()

    def _taken(self, start: int, end: int) -> bool:
        return self._sent([line for line in self.journal.after(start) if line.end <= end])

    def _sent(self, lines: list[Line]) -> bool:
        """Whether the store took them, or never will. Raises what it failed for, if it takes nothing."""
        try:
            self._store.send([line.entry for line in lines])
        except Exception as error:
            if self._refused(error) and len(lines) > 1:
                return min([self._sent([line]) for line in lines])
            if not self._refused(error) and not self._store.answers():
                raise
            what = lines[0].entry.get("name") or lines[0].entry["op"]
            print(f"[WARNING] MLflow did not take {what}: {first_line(error)}", file=sys.stderr, flush=True)
            return self._refused(error)
        return True

    def _set(self, **changes: Any) -> None:
        self.file = replace(self.file, **changes)
        if time.monotonic() - self._kept > KEEP_SECONDS:
            self._keep_now()

    def _keep_now(self) -> None:
        self._kept = time.monotonic()
        with suppress(OSError):  # then some of it is sent once more
            self._keep(self.file)

    def _heard(self) -> None:
        with self._changed:
            if self._in_a_row:
                print("MLflow answers again: what was kept is being sent", file=sys.stderr, flush=True)
            self._in_a_row, self._progress = 0, time.monotonic()
            self._changed.notify_all()

    def _failed(self, error: Exception) -> None:
        with self._changed:
            if not self._in_a_row:
                print(
                    f"[WARNING] MLflow: {first_line(error)}. Training goes on; what is not sent is kept in "
                    f"{self.journal.path} and tried again.",
                    file=sys.stderr,
                    flush=True,
                )
            self._in_a_row += 1
            self._failed_attempts += 1


def _groups(lines: Iterator[Line]) -> Iterator[list[Line]]:
    """Neighbours of one kind together: many steps in one request."""
    for _, group in itertools.groupby(lines, key=lambda line: line.entry["op"]):
        yield list(group)
