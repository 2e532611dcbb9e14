"""A folder of Arrow files that is whole or goes on where it stood."""

import fcntl
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow

from lib.data.cache import DataCache
from lib.files import FULL_DISK, WITHOUT_LOCKS, read_json, write_json
from lib.heartbeat import beat
from lib.settings.errors import InputError
from lib.settings.schema.data import NO_CACHE

WHOLE = "whole.json"
_PATIENCE = 3.0
"""Seconds of waiting for another process before it is said."""


@dataclass(frozen=True)
class StoreFolder:
    """Numbered files of rows, each written aside and renamed, and a marker that is written last.

    What a killed process leaves is either a file that is complete, which the next one keeps, or a `.part`,
    which the next one clears away.
    """

    path: Path

    @classmethod
    def of(cls, cache: DataCache, kind: str, key: str) -> "StoreFolder":
        return cls(cache.root / f"{kind}-{key[:32]}")

    def shard(self, number: int) -> Path:
        return self.path / f"{number:06d}.arrow"

    def missing(self, count: int) -> list[int]:
        return [number for number in range(count) if not self.shard(number).exists()]

    def marker(self) -> dict[str, Any] | None:
        """What was noted when the folder was complete; None before. Marks the folder as used now."""
        try:
            content: dict[str, Any] = read_json(self.path / WHOLE)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        with suppress(OSError):  # another user's cache may be read only
            os.utime(self.path / WHOLE)
        return content

    def finish(self, content: dict[str, Any]) -> None:
        write_json(self.path / WHOLE, content)

    @contextmanager
    def building(self) -> Iterator[None]:
        """Only one process at a time; the others wait, and find it done."""
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _wait_for(descriptor, self.path)
            for left in self.path.glob("*.part"):
                left.unlink(missing_ok=True)
            yield
        finally:
            os.close(descriptor)


def write_shard(path: Path, batch: pyarrow.RecordBatch, *, compressed: bool = False) -> None:
    """In the format of `datasets`. The file appears when it is whole. Raises OSError as the disk gave it."""
    sink = pyarrow.BufferOutputStream()
    options = pyarrow.ipc.IpcWriteOptions(compression="zstd" if compressed else None)
    with pyarrow.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(sink.getvalue())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_shard(path: Path) -> pyarrow.RecordBatch:
    """Memory-mapped: pages of the file are read when they are looked at, and may be dropped again."""
    return pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))).read_next_batch()


@contextmanager
def disk_errors(cache: DataCache) -> Iterator[None]:
    """A cache folder that is full or cannot be written, as an InputError."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK and not _is_of(cache, error):
            raise
        reason = error.strerror or str(error)
        raise InputError.of(
            where=str(error.filename or cache.root),
            key="SFT_CACHE_DIR",
            value=f"{cache.root}: {reason} ({_free_bytes(cache.root) / 1e9:.1f} GB free)",
            expected="a folder that can be written, with about six times the size of the data sets free",
            remedy="free some space (what is prepared so far is kept and used), set SFT_CACHE_DIR to a "
            f"folder on a larger disk, or to {NO_CACHE} to keep rows in memory",
        ) from error


def _is_of(cache: DataCache, error: OSError) -> bool:
    """Whether it is about the cache folder, something in it or a folder above that it would be made in."""
    if not isinstance(error.filename, str):
        return False
    place = Path(error.filename)
    return place.is_relative_to(cache.root) or cache.root.is_relative_to(place)


def prune(cache: DataCache, keep: set[Path]) -> None:
    """Remove what was not used for longest, until the cache is within its bound. A process that still reads
    a removed file keeps it until it ends. `keep` are folders in use."""
    found = [(_used(path), path) for path in cache.root.glob("*-*") if path.is_dir()]
    sizes = {path: sum(file.stat().st_size for file in path.glob("*")) for _, path in found}
    total = sum(sizes.values())
    for _, path in sorted(found):
        if total <= cache.limit:
            return
        if path not in keep and not _is_being_built(path):
            shutil.rmtree(path, ignore_errors=True)
            total -= sizes[path]


def _used(path: Path) -> float:
    marker = path / WHOLE
    return (marker if marker.exists() else path).stat().st_mtime


def _is_being_built(path: Path) -> bool:
    with suppress(OSError):
        descriptor = os.open(path / "lock", os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def _wait_for(descriptor: int, path: Path) -> None:
    try:
        say_at = time.monotonic() + _PATIENCE
        while not _locked(descriptor):
            beat()  # the other one says whether it moves
            time.sleep(0.05)
            if time.monotonic() > say_at:
                say_at = math.inf
                waiting = f"another process prepares these rows; waiting for it ({path})"
                print(waiting, file=sys.stderr, flush=True)
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _free_bytes(root: Path) -> int:
    there = next(path for path in (root, *root.parents) if path.exists())
    return shutil.disk_usage(there).free
