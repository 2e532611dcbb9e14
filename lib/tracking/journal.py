"""What a run has to tell, one line of JSON each, in the stage's folder: written at once, sent later.

Lines are never changed, and each has its own time: sent twice they are one entry in the store.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from lib.files import parse_json

JOURNALS = "tracking-*.jsonl"
DAMAGED = "damaged"
"""In the place of a line that is not as it was written: it tells nothing, and stops nothing."""
Entry = dict[str, Any]


class Line(NamedTuple):
    start: int
    end: int
    """Bytes."""
    entry: Entry


class Told:
    """Which metrics were told at which step: a stage that goes on from a checkpoint repeats some."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._metrics: set[tuple[str, int]] = set()
        self._params: set[str] = set()
        for entry in entries:
            with suppress(KeyError, TypeError, AttributeError):  # damaged, and still JSON
                if entry["op"] == "metrics":
                    self.new_metrics(entry["values"], entry["step"])
                elif entry["op"] == "params":
                    self.new_params(entry["values"])

    def new_metrics(self, values: Mapping[str, Any], step: int) -> dict[str, float]:
        """The numbers among `values` that were not told at this step; now they are. What is not finite is no
        point of a curve: who measured it has named it."""
        new = {
            name: float(value)
            for name, value in values.items()
            if isinstance(value, int | float) and math.isfinite(value) and (name, step) not in self._metrics
        }
        self._metrics |= {(name, step) for name in new}
        return new

    def next_step(self, prefix: str) -> int:
        """The step after the last one of metrics that begin so."""
        return 1 + max((step for name, step in self._metrics if name.startswith(prefix)), default=-1)

    def new_params(self, values: Mapping[str, str]) -> dict[str, str]:
        """A parameter is told once; a store would refuse another value."""
        new = {name: value for name, value in values.items() if name not in self._params}
        self._params |= new.keys()
        return new


def whole_entries(path: Path) -> Iterator[Entry]:
    """The lines of a journal that nobody has open; one that was cut off is left out."""
    for line in path.read_bytes().split(b"\n")[:-1]:
        yield _entry(line)


def _entry(line: bytes) -> Entry:
    with suppress(ValueError):
        entry = parse_json(line)
        if isinstance(entry, dict) and isinstance(entry.get("op"), str):
            return entry
    return {"op": DAMAGED, "time": 0}


class Journal:
    """One file, locked as long as it is open: a dead process holds no lock.

    Raises BlockingIOError when another process has it, OSError when it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise
        self._writing = threading.Lock()
        self._cut_torn_line()

    def _cut_torn_line(self) -> None:
        """What a process left that died while it wrote."""
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)
        self.size = whole

    def add(self, entry: Mapping[str, Any]) -> None:
        """Append it with the present time. A line that does not fit on the disk leaves no trace."""
        stamped = {"time": int(time.time() * 1000), **entry}
        line = (json.dumps(stamped, ensure_ascii=False, default=str) + "\n").encode(
            "utf-8", "backslashreplace"
        )
        with self._writing:
            try:
                written = self._file.write(line)
                if written < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            except OSError:
                os.truncate(self.path, self.size)
                raise
            self.size += written

    def after(self, offset: int) -> Iterator[Line]:
        """Whole lines from `offset` on, as far as they have been written."""
        with self.path.open("rb") as file:
            file.seek(offset)
            while offset < self.size:
                line = file.readline()
                yield Line(offset, offset + len(line), _entry(line))
                offset += len(line)

    def entries(self) -> Iterator[Entry]:
        return (line.entry for line in self.after(0))

    def close(self) -> None:
        self._file.close()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
