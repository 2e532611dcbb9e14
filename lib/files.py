"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

# File systems that know no locks on folders: two at once are then not noticed.
WITHOUT_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL})
# No space, no quota left, and a file larger than this process may write.
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
LOCK_TRIES, LOCK_PAUSE = 10, 0.05


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

    A symbolic link at either name is replaced, never written through. What fails leaves nothing behind.
    """
    temporary = path.with_name(path.name + ".part")
    temporary.unlink(missing_ok=True)
    try:
        with temporary.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def existing_folder(folder: Path) -> Path:
    """The nearest folder above that is there: what will be written lies on the same disk."""
    return next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())


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
    aside, former = aside_of(destination), destination.with_name(destination.name + ".old")
    destination.parent.mkdir(parents=True, exist_ok=True)
    for own in (aside, former):
        if own.is_symlink():  # what it leads to is not ours to empty
            own.unlink()
    with _held(aside):
        if former.exists() and not destination.exists():  # killed between the two renames
            os.replace(former, destination)
        shutil.rmtree(former, ignore_errors=True)
        yield aside
        sync(aside)
        _exchange(aside, destination, former)
        sync(destination.parent)
    shutil.rmtree(former, ignore_errors=True)


def empty_folder(folder: Path) -> None:
    """An empty folder in its place."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def aside_of(destination: Path) -> Path:
    """Where `built_aside` builds it: other processes may help to fill it."""
    destination = destination.resolve()
    return destination.with_name(destination.name + ".part")


def remove_folder(folder: Path) -> None:
    """Delete a folder that must not be seen half deleted: it is renamed first. `finish_changes` deletes what
    a killed process left of it."""
    if folder.is_symlink():  # what it leads to is not ours
        folder.unlink()
        return
    doomed = folder.with_name(folder.name + ".removed")
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(folder, doomed)
    shutil.rmtree(doomed)


def finish_changes(parent: Path, pattern: str) -> None:
    """Put right what processes were killed at while they built or removed folders in `parent` whose names
    match `pattern`. Nobody may be at it."""
    for former in parent.glob(pattern + ".old"):
        if not former.with_suffix("").exists():  # killed between the two renames of `built_aside`
            os.replace(former, former.with_suffix(""))
    for suffix in (".part", ".old", ".removed"):
        for left in parent.glob(pattern + suffix):
            shutil.rmtree(left)


@contextmanager
def held_file(path: Path, note: str) -> Iterator[None]:
    """`path` with `note` in it, locked while the block lasts and then deleted. A dead process holds no lock:
    what it left is taken over. Raises BlockingIOError when a living one has it."""
    with ExitStack() as stack:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        stack.callback(os.close, descriptor)
        _lock_patiently(descriptor)
        if not _is_at(descriptor, path):  # its holder was just deleting it
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), str(path))
        stack.callback(path.unlink, missing_ok=True)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, note.encode())
        yield


def is_held(path: Path) -> bool:
    """Whether a living process has `path` by `held_file`. False where the file system knows no locks."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        _lock(descriptor, fcntl.LOCK_SH)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _lock_patiently(descriptor: int) -> None:
    """Somebody may be looking whether it is held, which takes a moment."""
    for _ in range(LOCK_TRIES - 1):
        with suppress(BlockingIOError):
            return _lock(descriptor)
        time.sleep(LOCK_PAUSE)
    return _lock(descriptor)


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


def _lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> None:
    """Raises BlockingIOError when another process has the lock."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
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


def sync(path: Path) -> None:
    """The content of a file, or the names in a folder, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
