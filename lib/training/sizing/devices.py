"""What there is to compute on: visible GPUs and memory, asked without torch."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.training.sizing.sizes import readable_bytes

GPU_SHARE = 0.9
"""Of a GPU's memory; the rest is for the CUDA context, NCCL's buffers and what fragmentation wastes."""
CPU_SHARE = 0.5
"""Of the machine's memory, shared by its processes. Not of what is free: that changes from moment to moment,
and a run would not do what its plan said."""
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True)
class DeviceMemory:
    """What one process may fill. Unit: bytes."""

    usable: int
    arithmetic: str
    total: int = 0
    """What there is altogether; 0 where that is not known."""


def device_memory(*, processes: int, gpus: int, environ: Mapping[str, str] = os.environ) -> DeviceMemory:
    """Of the smallest GPU, else of this machine shared by the processes that run on it."""
    total = gpu_memory(environ) if gpus else 0
    if total:
        share = f"{GPU_SHARE:.0%} of a GPU's {readable_bytes(total)}"
        return DeviceMemory(int(GPU_SHARE * total), share, total)
    total = host_memory()
    here = int(environ.get("LOCAL_WORLD_SIZE", processes))
    shared = f" for {here} processes" if here > 1 else ""
    share = f"{CPU_SHARE:.0%} of this machine's {readable_bytes(total)}{shared}"
    return DeviceMemory(int(CPU_SHARE * total / here), share, total // here)


def count_gpus(environ: Mapping[str, str] = os.environ) -> int:
    """Visible NVIDIA GPUs, asked of the driver's own tool so that planning needs no torch."""
    return len(_visible(_ask("-L"), environ))


def gpu_memory(environ: Mapping[str, str] = os.environ) -> int:
    """Bytes of the smallest GPU; 0 where none is visible, or where the driver does not say.

    Of all, because CUDA numbers them by speed and the driver's tool by slot.
    """
    sizes = _ask("--query-gpu=memory.total", "--format=csv,noheader,nounits")
    return min((int(size) * 2**20 for size in sizes), default=0) if _visible(sizes, environ) else 0


def host_memory() -> int:
    """Bytes of this machine, or of the container's limit where that is less."""
    limits = [path.read_text().strip() for path in CGROUP_LIMITS if path.is_file()]
    return min([_physical_memory(), *(int(limit) for limit in limits if limit.isdigit())])


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _ask(*question: str) -> list[str]:
    """What the driver's tool says, a line a GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    answer = subprocess.run([tool, *question], capture_output=True, text=True, timeout=30, check=False).stdout
    return [line.strip() for line in answer.splitlines() if line.startswith("GPU ") or line.strip().isdigit()]


def _visible(present: Sequence[str], environ: Mapping[str, str]) -> Sequence[str]:
    """As many of `present` as CUDA_VISIBLE_DEVICES leaves."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return present
    # CUDA stops reading at the first entry that is no device.
    named = itertools.takewhile(lambda device: device.strip() not in {"", "-1"}, visible.split(","))
    return present[: len(list(named))]
