"""The folders of a stage kept the same on machines that do not share them.

Rank 0's files are the ones that count. Where the first process of a machine cannot see them, that machine is
*apart*: it gets copies before a stage and after each checkpoint, and gives rank 0 its own parts of one. The
files go through the meeting's store, a few megabytes at a time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lib.settings.errors import Problem, RunError
from lib.training.machines.lifeline import new_token
from lib.training.machines.meeting import Meeting

PART = 4 * 2**20
"""Bytes; torch's store takes 8 MiB at most."""
UNDERWAY = 4
"""Parts of a file that are in the store at a time."""
LOOKS, LOOK_PAUSE = 5, 0.1
"""A network file system may be late."""
COPYING = ".copying"
Kept = Callable[[str], bool]
"""Whether a file, by its path in the folder, is one that is copied."""


def everything(_: str) -> bool:
    return True


class Copies:
    """`apart` are the ranks that have folders of their own and keep them for their machine."""

    def __init__(self, meeting: Meeting) -> None:
        self.meeting = meeting
        self.apart: tuple[int, ...] = ()

    @property
    def is_apart(self) -> bool:
        return self.meeting.place.rank in self.apart

    def look(self, folder: Path) -> None:
        """Find out which machines do not see rank 0's `folder`; it is made where it is missing."""
        place = self.meeting.place
        name = self.meeting.first("mark", self._marked(folder))
        # A folder that rank 0 cannot write into is refused soon, with what to do.
        sees = not name or not place.leads or _appears(folder / name)
        self.apart = tuple(rank for rank, seen in enumerate(self.meeting.all("seen", sees)) if not seen)
        if place.rank == 0 and name:
            (folder / name).unlink()

    def _marked(self, folder: Path) -> str:
        """Name of a new file in rank 0's folder; a name that was never looked for is in no cache of a network
        file system."""
        name = f".seen-by-all-{new_token()}"
        if self.meeting.place.rank == 0:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / name).touch()
            except OSError:
                return ""
        return name

    def mirror(self, folder: Path, kept: Kept = everything, *, empties: bool = True) -> None:
        """Make `folder` on machines that are apart as it is on rank 0's.

        Unless it `empties`, raises RunError where rank 0 has nothing and another machine has: they may have
        been numbered in another order before.
        """
        if not self.apart:
            return
        there = self.meeting.first("listing", self._first_listing(folder, kept))
        wanted: list[str] = []
        if self.is_apart:
            here = _listing(folder, kept)
            if here and not (there or empties):
                raise RunError(_without_source(folder, self.meeting.place.host))
            _remove(folder, here.keys() - there.keys())
            wanted = sorted(name for name, stamp in there.items() if here.get(name) != stamp)
        by_rank = self.meeting.all("wanted", wanted)
        # A checkpoint is whole when its manifest is there: folders first, in each the files by name.
        for name in sorted({name for names in by_rank for name in names}, key=_late):
            takers = [rank for rank, names in enumerate(by_rank) if name in names]
            self._pass_on(folder / name, 0, takers, there[name][1])
        self.meeting.all("mirrored", None)

    def collect(self, folder: Path) -> None:
        """Give rank 0 what the machines that are apart have written into their own `folder`."""
        if not self.apart:
            return
        present = self.meeting.first("present", self._first_listing(folder, everything))
        own = _listing(folder, everything) if self.is_apart else {}
        by_rank = self.meeting.all("own", {name: stamp for name, stamp in own.items() if name not in present})
        for giver, files in enumerate(by_rank):
            for name, (_, modified) in sorted(files.items()):
                self._pass_on(folder / name, giver, [0], modified)
        self.meeting.all("collected", None)

    def _first_listing(self, folder: Path, kept: Kept) -> dict[str, Any]:
        """Of rank 0: where others look into the same folder, files come and go under them."""
        return _listing(folder, kept) if self.meeting.place.rank == 0 else {}

    def _pass_on(self, path: Path, giver: int, takers: Sequence[int], modified: int) -> None:
        rank = self.meeting.place.rank
        call = self.meeting.call("file")
        if rank == giver:
            self._give(path, call, len(takers))
        elif rank in takers:
            try:
                self._take(path, call, modified)
            except OSError as error:
                raise RunError(_not_written(path, error)) from error

    def _give(self, path: Path, call: str, takers: int) -> None:
        store = self.meeting.store
        with path.open("rb") as file:
            parts = -(-os.fstat(file.fileno()).st_size // PART)
            store.set(f"{call}/parts", str(parts))
            for number in range(parts):
                store.set(f"{call}/{number}", file.read(PART))
                if number >= UNDERWAY:
                    self._taken(call, number - UNDERWAY, takers)
        for number in range(max(0, parts - UNDERWAY), parts):
            self._taken(call, number, takers)

    def _taken(self, call: str, number: int, takers: int) -> None:
        for taker in range(takers):
            self.meeting.wait_for(f"{call}/{number}/taken/{taker + 1}")
        self.meeting.store.delete_key(f"{call}/{number}")

    def _take(self, path: Path, call: str, modified: int) -> None:
        store = self.meeting.store
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + COPYING)
        temporary.unlink(missing_ok=True)
        self.meeting.wait_for(f"{call}/parts")
        with temporary.open("xb") as file:
            for number in range(int(store.get(f"{call}/parts"))):
                self.meeting.wait_for(f"{call}/{number}")
                file.write(store.get(f"{call}/{number}"))
                store.set(f"{call}/{number}/taken/{store.add(f'{call}/{number}/takers', 1)}", "")
            file.flush()
            os.fsync(file.fileno())
        os.utime(temporary, ns=(modified, modified))
        os.replace(temporary, path)


def _appears(path: Path) -> bool:
    for _ in range(LOOKS):
        if path.exists():
            return True
        time.sleep(LOOK_PAUSE)
    return False


def _listing(folder: Path, kept: Kept) -> dict[str, Any]:
    """Path in the folder to size and time of the last change."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            raise RunError(_link(path))
        if path.is_file() and kept(name):
            stat = path.stat()
            found[name] = [stat.st_size, stat.st_mtime_ns]
    return found


def _late(name: str) -> tuple[bool, str]:
    return name.endswith("manifest.json"), name


def _remove(folder: Path, names: set[str]) -> None:
    for name in names:
        (folder / name).unlink()
    for inner in sorted(folder.rglob("*"), reverse=True):
        if inner.is_dir() and not any(inner.iterdir()):
            with suppress(OSError):
                inner.rmdir()


def _without_source(folder: Path, host: str) -> Problem:
    return Problem(
        where=str(folder),
        value=f"{host} has files there, and rank 0's machine, whose folder counts, has none",
        expected="the machine that has trained so far as the first one",
        remedy=f"start with {host} as machine 0, or remove the folder on {host}, or share the output folder",
    )


def _not_written(path: Path, error: OSError) -> Problem:
    return Problem(
        where=str(path),
        value=error.strerror or str(error),
        expected="room for a copy of the stage's folder: this machine does not share rank 0's",
        remedy="free some space or give this user the right to write there, or share the folder",
    )


def _link(path: Path) -> Problem:
    return Problem(
        where=str(path),
        value="a link inside a stage's folder, which is to be copied to another machine",
        expected="files and folders",
        remedy="remove it, or share the folder between the machines",
    )
