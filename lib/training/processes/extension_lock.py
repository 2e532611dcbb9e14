"""The lock of an operator's build that was killed: every later run would wait for it, silently and for ever.

torch builds operators such as DeepSpeed's for the CPU at first use, guarded by a file that the builder keeps
open (`torch.utils.file_baton`, 2.13). One that nobody has open was left by a process that died, or belongs to
another machine that shares the folder: that one is given time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lib.training.durations import readable_duration

LOCK = "lock"
# A build takes about a minute.
OTHER_MACHINES_SECONDS = 300.0
PAUSE = 1.0


def release_orphaned_locks(folder: Path | None = None) -> list[str]:
    """Remove old locks that no process of this machine holds. Returns notices of what was removed."""
    notices = []
    for lock in sorted((folder or extensions_folder()).rglob(LOCK)):
        if _is_foreign(lock) and _seconds_left(lock) <= 0:
            lock.unlink(missing_ok=True)
            notices.append(f"  removed {lock}, which a killed build had left: runs would have waited for it")
    return notices


def await_other_machines(operator: str, say: Callable[[str], None], folder: Path | None = None) -> None:
    """Return when no lock of this operator is left that only another machine could hold, which has its time.
    torch itself would wait for ever, also where the build was killed."""
    heard = False
    while locks := [
        path for path in (folder or extensions_folder()).glob(f"*/{operator}/{LOCK}") if _is_foreign(path)
    ]:
        if not heard:
            left = readable_duration(max(map(_seconds_left, locks)))
            say(
                f"[WARNING] waiting for {locks[0]}, {left} at most: a build that was killed left it, or "
                "another machine is building this operator. If none is, delete it"
            )
        heard = True
        time.sleep(PAUSE)
        for notice in release_orphaned_locks(folder):
            say(notice)


def extensions_folder() -> Path:
    """Where torch builds."""
    given = os.environ.get("TORCH_EXTENSIONS_DIR")
    return Path(given) if given else Path.home() / ".cache" / "torch_extensions"


def _seconds_left(lock: Path) -> float:
    """Until it is taken for orphaned."""
    with suppress(FileNotFoundError):
        return lock.stat().st_mtime + OTHER_MACHINES_SECONDS - time.time()
    return 0.0


def _is_foreign(lock: Path) -> bool:
    """Whether it is there, and no process of this machine has it open."""
    with suppress(FileNotFoundError):
        return lock.is_file() and not _is_held(lock)
    return False


def _is_held(lock: Path) -> bool:
    """Whether a process of this machine has the file open."""
    wanted = lock.stat()
    for handle in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.path.samestat(handle.stat(), wanted):
                return True
        except OSError:  # gone meanwhile, or another user's
            continue
    return False
