"""From what was seen of one process, and of all, to what keeps them. Pure: nothing is read here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lib.training.watchdog.evidence import Evidence, Frame

Kind = Literal["computing", "compiling", "collective", "data", "disk", "network", "blocked"]
BUSY = 0.3
"""Cores from which on a process counts as computing."""
OFTEN = 0.5
COLLECTIVES = ("/torch/distributed/", "/deepspeed/comm/")
NETWORK = ("/huggingface_hub/", "/httpx/", "/urllib3/", "/requests/", "/httpcore/")
OURS = f"{Path(__file__).parents[2]}/"
DATA = ("/torch/utils/data/", "/datasets/", f"{OURS}data/")
EXPERTS = (f"{OURS}model/expert_lora/", "/integrations/moe.py")
BUILT_BY_ANOTHER = "/torch/utils/file_baton.py"
IMPORTING = "<frozen importlib"
BACKWARD = "_engine_run_backward"


@dataclass(frozen=True)
class Seen:
    """One process that has not moved."""

    kind: Kind
    said: str
    """`still computing (1.0 cores busy), in the experts: kernel.py:41, forward`."""
    operation: str = ""
    """Of a collective: `all_reduce`."""


@dataclass(frozen=True)
class Report:
    """What one rank says of itself."""

    rank: int
    where: str
    """Phase, and what of it: `training, step 12`."""
    beats: int
    silent: float
    """Seconds since it last moved."""
    seen: Seen
    stacks: str
    place: str = ""
    """Machine and process."""


def judge(evidence: Evidence, *, processes: int) -> Seen:
    """What one of so many `processes` does. The order decides: who waits for others may spin, and a process
    that prepares data is busy too."""
    at = _innermost(evidence.frames)
    if evidence.building:
        return Seen("compiling", f"compiling ({evidence.building} runs), in {at}")
    if _has(evidence.frames, (BUILT_BY_ANOTHER,)):
        return Seen("compiling", f"waiting until another process has compiled, in {at}")
    operation = _collective(evidence, processes)
    if operation:
        return Seen("collective", f"waiting in a collective ({operation})", operation)
    busy = f"{evidence.cpu:.1f} cores busy"
    if _has(evidence.frames, (IMPORTING,)):
        return Seen("disk", f"loading Python modules from disk ({busy}), in {at}")
    if _has(evidence.frames, DATA):
        return Seen("data", f"waiting for data ({busy}), in {at}")
    if evidence.disk_waits > OFTEN or evidence.file_call:
        return Seen("disk", f"waiting for disk ({evidence.file_call or 'reading or writing'}), in {at}")
    if evidence.cpu < BUSY and _has(evidence.frames, NETWORK):
        return Seen("network", f"waiting for the network, in {at}")
    if evidence.cpu >= BUSY:
        slow = ": slow experts" if _has(evidence.frames, EXPERTS) or _names_experts(evidence) else ""
        return Seen("computing", f"still computing{slow} ({busy}), in {at}")
    return Seen("blocked", f"blocked, not computing ({busy}), in {at}")


def _collective(evidence: Evidence, processes: int) -> str:
    """The operation that the process waits in; empty when in none. A backward pass may wait in a thread of
    its own, or in code that has no Python frame."""
    frames = evidence.frames
    backward = bool(frames) and frames[-1].function == BACKWARD
    found = _first(frames, COLLECTIVES) or (_first(evidence.others, COLLECTIVES) if backward else "")
    if found or processes == 1 or not backward or evidence.cpu >= BUSY:
        return found
    return "inside of the backward pass"


def _first(frames: Sequence[Frame], folders: Sequence[str]) -> str:
    """The outermost function of these folders that is no wrapper."""
    inside = [f.function for f in frames if any(folder in f.file for folder in folders)]
    return next((name for name in inside if "wrapper" not in name and not name.startswith("_")), "")


def _has(frames: Sequence[Frame], folders: Sequence[str]) -> bool:
    return any(folder in frame.file for frame in frames for folder in folders)


def _names_experts(evidence: Evidence) -> bool:
    return any("experts" in frame.function for frame in evidence.frames)


def _innermost(frames: Sequence[Frame]) -> str:
    """Where it is: the innermost call, and the innermost one of this project where that is another."""
    if not frames:
        return "unknown code"
    own = next((f for f in reversed(frames) if f.file.startswith(OURS)), frames[-1])
    return " < ".join(dict.fromkeys(map(_place, (frames[-1], own))))


def _place(frame: Frame) -> str:
    return f"{frame.file.rpartition('/')[2]}:{frame.line} {frame.function}"


def verdict(reports: Mapping[int, Report], processes: int) -> list[str]:
    """What keeps the run, from the reports of the ranks that gave one; first who waits for whom."""
    mute = [rank for rank in range(processes) if rank not in reports]
    waiting = [report for report in reports.values() if report.seen.kind == "collective"]
    keeping = [report for report in reports.values() if report.seen.kind != "collective"]
    lines = []
    if mute:
        lines.append(
            f"{_ranks(mute)} {'do' if len(mute) > 1 else 'does'} not answer: gone, or held inside of C code"
        )
    if waiting and (keeping or mute):
        names = _ranks([*(report.rank for report in keeping), *mute])
        lines.insert(0, f"{_waiters(waiting)} for {names}")
    elif waiting:
        lines += _all_wait(waiting)
    return lines + [_line(report, processes) for report in keeping]


def _all_wait(waiting: Sequence[Report]) -> list[str]:
    if len(groups := _by_place(waiting)) == 1:
        return [f"{_waiters(waiting)} at the same place: what is between them does not answer, or is slow"]
    return ["the ranks wait in different collectives and will never meet:"] + [
        f"{_ranks(ranks)}: {place}" for place, ranks in groups.items()
    ]


def _by_place(reports: Sequence[Report]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for report in reports:
        groups.setdefault(f"{report.seen.operation} ({report.where})", []).append(report.rank)
    return groups


def _waiters(waiting: Sequence[Report]) -> str:
    many = len(waiting) > 1
    where = ", ".join(dict.fromkeys(f"{r.seen.operation} ({r.where})" for r in waiting))
    return f"{_ranks([r.rank for r in waiting])} wait{'' if many else 's'} in a collective, {where},"


def _line(report: Report, processes: int) -> str:
    who = f"rank {report.rank} ({report.where}): " if processes > 1 else ""
    return f"{who}{report.seen.said}"


def _ranks(ranks: Sequence[int]) -> str:
    listed = ", ".join(map(str, sorted(ranks)))
    return f"rank{'s' * (len(ranks) > 1)} {listed}"
