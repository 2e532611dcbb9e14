"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

# File systems that know no locks on folders: two at once are then not noticed.
WITHOUT_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL})


def read_json(path: Path) -> Any:
    """Raises OSError, and ValueError for what is no JSON in UTF-8, or is nested beyond reason."""
    return parse_json(path.read_text(encoding="utf-8"))


def parse_json(text: str | bytes) -> Any:
    """json.loads, but with ValueError for every text that it cannot take."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def write_text(path: Path, text: str) -> None:
    """Temporary file, fsync, rename: a reader sees the old file or the new one. Line ends stay as given.

    A symbolic link at either name is replaced, never written through.
    """
    temporary = path.with_name(path.name + ".part")
    temporary.unlink(missing_ok=True)
    with temporary.open("x", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def links_inside(folder: Path) -> list[Path]:
    """The symbolic links among a folder and all that lies in it, sorted; those above it are not its own."""
    if folder.is_symlink():
        return [folder]
    found = (Path(parent) / name for parent, folders, files in os.walk(folder) for name in (*folders, *files))
    return sorted(path for path in found if path.is_symlink())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """The same for plain data, one value a line, every script as it is."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")


@contextmanager
def built_aside(destination: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `destination` when the block ends well.

    It lies beside it, so that a rename moves it. When the block is left by an error or an interrupt, the
    destination is as it was and nothing else is left; what a killed process left is cleared away by the next
    one. Raises BlockingIOError when another process is building the same folder.
    """
    destination = destination.resolve()
    aside, former = (destination.with_name(destination.name + suffix) for suffix in (".part", ".old"))
    destination.parent.mkdir(parents=True, exist_ok=True)
    for own in (aside, former):
        if own.is_symlink():  # what it leads to is not ours to empty
            own.unlink()
    with _held(aside):
        if former.exists() and not destination.exists():  # killed between the two renames
            os.replace(former, destination)
        shutil.rmtree(former, ignore_errors=True)
        yield aside
        _sync(aside)
        _exchange(aside, destination, former)
        _sync(destination.parent)
    shutil.rmtree(former, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """`folder`, made or emptied, locked while the block lasts; removed afterwards if it is still there. A
    dead process holds no lock."""
    with ExitStack() as stack:
        stack.callback(_remove_unless_held, folder)  # last of all, and whenever an interrupt comes
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        stack.callback(os.close, descriptor)
        _lock(descriptor)
        if not _is_at(descriptor, folder):  # it went into its place while we came
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), str(folder))
        for left in folder.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield


def _remove_unless_held(folder: Path) -> None:
    with suppress(FileNotFoundError, BlockingIOError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            _lock(descriptor)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Raises BlockingIOError when another process has the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _exchange(new: Path, destination: Path, former: Path) -> None:
    """What was there is moved away before it is deleted: a folder deleted in part might pass for whole."""
    if destination.exists():
        os.replace(destination, former)
    try:
        os.replace(new, destination)
    except BaseException:
        if former.exists():
            os.replace(former, destination)
        raise


def _sync(folder: Path) -> None:
    """The names in a folder, on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
