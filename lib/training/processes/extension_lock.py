"""The lock of an operator's build that was killed: every later run would wait for it, silently and for ever.

torch builds operators such as DeepSpeed's for the CPU at first use, guarded by a file that the builder keeps
open (`torch.utils.file_baton`, 2.13). One that nobody has open was left by a process that died, or belongs to
another machine that shares the folder: that one is given time.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

LOCK = "lock"
# A build takes about a minute.
OTHER_MACHINES_SECONDS = 300.0


def release_orphaned_locks(folder: Path | None = None) -> list[str]:
    """Remove old locks that no process of this machine holds. Returns notices: what was removed, and what is
    waited for."""
    notices = []
    for lock in sorted((folder or extensions_folder()).rglob(LOCK)):
        if not lock.is_file() or _is_held(lock):
            continue
        if time.time() - lock.stat().st_mtime > OTHER_MACHINES_SECONDS:
            lock.unlink(missing_ok=True)
            notices.append(f"  removed {lock}, which a killed build had left: runs would have waited for it")
        else:
            notices.append(
                f"[WARNING] waiting for {lock}: another machine is building this operator. If none is, a "
                "killed build left the file: delete it"
            )
    return notices


def extensions_folder() -> Path:
    """Where torch builds."""
    given = os.environ.get("TORCH_EXTENSIONS_DIR")
    return Path(given) if given else Path.home() / ".cache" / "torch_extensions"


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
