"""What the system knows of this process: where its threads are, whether it computes, reads, or waits.

Of Linux's /proc; elsewhere only the stacks are known.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.5
LOOKS = 5
"""At the main thread's state in that time."""
BUILDERS = frozenset({"ninja", "c++", "g++", "cc1plus", "ld", "as", "nvcc", "cicc", "cudafe++", "ptxas"})
# Numbers of system calls that take a file descriptor first, on x86-64 and on arm64.
X86 = {0: "read", 1: "write", 17: "pread", 18: "pwrite", 19: "readv", 20: "writev", 74: "fsync", 75: "fsync"}
ARM = {
    63: "read",
    64: "write",
    65: "readv",
    66: "writev",
    67: "pread",
    68: "pwrite",
    82: "fsync",
    83: "fsync",
}
ON_A_FILE = {"x86_64": X86, "aarch64": ARM}


@dataclass(frozen=True)
class Frame:
    file: str
    line: int
    function: str


@dataclass(frozen=True)
class Evidence:
    frames: tuple[Frame, ...]
    """Of the main thread, outermost first."""
    others: tuple[Frame, ...]
    """Of all other threads."""
    cpu: float
    """Cores that the process kept busy, with those that it has started."""
    disk_waits: float
    """Share of the looks at which the main thread waited for a disk."""
    file_call: str
    """`read of /data/model.safetensors`: the system call on a file that the main thread is in."""
    building: str
    """The compiler that it has started; empty without one."""
    stacks: str
    """All threads as text."""


def collect() -> Evidence:
    """Look for SAMPLE_SECONDS. Called from another thread than the main one."""
    before, started = _cpu_seconds(), time.monotonic()
    states, calls = [], []
    for _ in range(LOOKS):
        time.sleep(SAMPLE_SECONDS / LOOKS)
        states.append(_state())
        calls.append(_file_call())
    cpu = (_cpu_seconds() - before) / (time.monotonic() - started)
    main = threading.main_thread().ident
    found = {i: f for i, f in sys._current_frames().items() if i != threading.get_ident()}
    frames = {i: tuple(map(_frame, traceback.extract_stack(f))) for i, f in found.items()}
    return Evidence(
        frames=frames.pop(main or 0, ()),
        others=tuple(frame for stack in frames.values() for frame in stack),
        cpu=cpu,
        disk_waits=states.count("D") / LOOKS,
        file_call=calls[-1] if len(set(calls)) == 1 else "",
        building=next((name for name in map(_name, _descendants()) if name in BUILDERS), ""),
        stacks="\n".join(_stack(i, traceback.format_stack(f)) for i, f in found.items()),
    )


def _frame(summary: traceback.FrameSummary) -> Frame:
    return Frame(summary.filename, summary.lineno or 0, summary.name)


def _stack(ident: int, lines: list[str]) -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return f"thread {names.get(ident, ident)}, innermost call last:\n{''.join(lines)}"


def _fields(process: int) -> list[str]:
    """Of its `stat` from the state on: its name before may hold anything."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def _state() -> str:
    with suppress(OSError):
        return _fields(os.getpid())[0]
    return ""


def _cpu_seconds() -> float:
    """Of this process and of those under it that live, and of its own that have ended."""
    ticks = 0
    for process in (os.getpid(), *_descendants()):
        with suppress(OSError):
            ticks += sum(map(int, _fields(process)[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _descendants() -> list[int]:
    """Processes that this one has started, and those that they have. Not every kernel lists children: each
    process names its parent."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            children.setdefault(int(_fields(int(entry.name))[1]), []).append(int(entry.name))
    found = list(children.get(os.getpid(), []))
    for process in found:  # grows meanwhile
        found += children.get(process, [])
    return found


def _name(process: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{process}/comm").read_text().strip()
    return ""


def _file_call() -> str:
    """Of the main thread; a pipe or a connection is no file."""
    try:
        number, first = Path(f"/proc/{os.getpid()}/syscall").read_text().split()[:2]
        call = ON_A_FILE.get(os.uname().machine, {}).get(int(number), "")
        target = os.readlink(f"/proc/self/fd/{int(first, 16)}") if call else ""
    except (OSError, ValueError):  # it runs, or the kernel does not say
        return ""
    return f"{call} of {target}" if target.startswith("/") and not target.startswith("/dev/") else ""
