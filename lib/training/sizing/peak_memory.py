"""How much memory this process took."""

from __future__ import annotations

import resource
from pathlib import Path


def peak_memory_bytes() -> int:
    """Highest memory of this process so far: the GPU's when there is one, else resident memory."""
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_resident_bytes()


def peak_resident_bytes() -> int:
    """Highest resident memory of this program so far.

    Not from getrusage() where /proc tells: the kernel carries that figure over fork and exec, so a small
    program that a large one started would be as large as its parent.
    """
    try:
        return resident_bytes("VmHWM")
    except (OSError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident_bytes(field: str) -> int:
    """Resident memory of this process: VmRSS is now, VmHWM the highest so far.

    Raises OSError where there is no /proc, ValueError where it does not tell.
    """
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields.get(field, "none").split()[0]) * 1024
