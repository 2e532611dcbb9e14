"""sha256 of whole files; a large one is read once and remembered in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from lib.files import read_json

# A smaller file is read each time: that takes no longer than a person notices.
REMEMBERED_BYTES = 8 * 2**20
# A file may change twice within one tick of the file system's clock, so a young one is not remembered.
SETTLED_SECONDS = 2.0
# Above this size people would wonder what takes so long.
WORTH_A_WORD = 2**30
CACHE = "lora-curriculum/hashes"


class Stamp(NamedTuple):
    """While this stays the same, so does the content. The time of the last change to the inode is in it,
    because the time of the last change to the content can be set at will."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        stat = path.stat()
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)

    @property
    def settled(self) -> bool:
        return time.time() - max(self.mtime_ns, self.ctime_ns) / 1e9 > SETTLED_SECONDS


def file_sha256(path: Path) -> str:
    """sha256 of the file's bytes, hexadecimal. Raises OSError when it cannot be read."""
    path = path.resolve()
    stamp = Stamp.of(path)
    if stamp.size < REMEMBERED_BYTES or not stamp.settled:
        return _digest(path)
    return _remembered(path, stamp)


def known_sha256(path: Path) -> str:
    """The same, but empty for a large file that would have to be read."""
    path = path.resolve()
    stamp = Stamp.of(path)
    return file_sha256(path) if stamp.size < REMEMBERED_BYTES else _recall(path, stamp)


@lru_cache(maxsize=1024)  # for homes that cannot be written: at least once a process
def _remembered(path: Path, stamp: Stamp) -> str:
    known = _recall(path, stamp)
    if known:
        return known
    if stamp.size > WORTH_A_WORD:
        print(f"hashing {path.name} ({stamp.size / 1e9:.1f} GB), once", file=sys.stderr, flush=True)
    digest = _digest(path)
    if Stamp.of(path) == stamp:
        _keep(path, stamp, digest)
    return digest


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _recall(path: Path, stamp: Stamp) -> str:
    """What the cache holds; empty for nothing, for another stamp and for a damaged entry."""
    try:
        entry = read_json(_entry(path))
        found = str(entry["sha256"]) if entry["stamp"] == list(stamp) else ""
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):
        return ""
    return found if len(found) == 64 else ""


def _keep(path: Path, stamp: Stamp, digest: str) -> None:
    """One small file per entry, renamed into place: processes at the same time cannot lose each other's.

    A cache that cannot be written only costs time.
    """
    with suppress(OSError, RuntimeError):
        entry = _entry(path)
        entry.parent.mkdir(parents=True, exist_ok=True)
        temporary = entry.with_suffix(f".{os.getpid()}.part")
        content = {"path": str(path), "stamp": list(stamp), "sha256": digest}
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
        os.replace(temporary, entry)


def _entry(path: Path) -> Path:
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    return _cache_folder() / f"{name}.json"


def _cache_folder() -> Path:
    """Raises RuntimeError where the user has no home."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / CACHE
