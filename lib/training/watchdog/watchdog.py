"""Looks from a thread of its own whether this process still moves, and says what keeps it when it does not.

No collective is used, since one may be what hangs: rank 0 asks by a file in the stage's folder, and the
watchdog of every other rank answers with a file. A process that holds Python's own lock inside of C code
stops its threads too; then the last resort (last_resort.py) speaks.

Time in which this thread itself stood still, since the process was stopped (SIGSTOP, a frozen container), is
no silence of the training. A machine that sleeps needs nothing: its monotonic clock sleeps too.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lib.heartbeat import HEART, beat
from lib.settings import StageSettings
from lib.training.durations import readable_duration
from lib.training.machines.alone import ALONE, Alone
from lib.training.phase_times import SETTING_UP, say_phase
from lib.training.processes.worker_words import say_last
from lib.training.sizing.world import World
from lib.training.watchdog.evidence import collect
from lib.training.watchdog.last_resort import LastResort
from lib.training.watchdog.stall_files import StallFiles
from lib.training.watchdog.stall_verdict import Report, judge, verdict

LOOKS_PER_LIMIT = 20
LONGEST_TICK = 2.0
"""Seconds between two looks."""
ANSWER_SECONDS = 5.0
"""What other ranks get to answer, at least; looking takes half a second."""
STOPPED = 1.0
"""Seconds by which a look comes late, and at least a tick: the process was stopped. On a busy machine looks
come late by less."""
TURN = 0.5
"""Of the limit: so much later each rank after the first speaks, when those before it have not."""
COMPILER_LIMITS = 10
"""So many limits a compiler may take before it ends a run: it says nothing while it works, and on a busy
machine it hardly computes."""
LONG_PHASE = 10.0
"""Seconds after which a phase is named while it lasts: whoever watches sees where it is."""


def say_on_stdout(line: str) -> None:
    print(line, flush=True)


@dataclass(frozen=True)
class Watch:
    """What is watched, and how."""

    folder: Path
    """`stalls.txt` goes there."""
    limit: float
    """Seconds without a beat until it is said; 0: never."""
    stops: bool = False
    """Whether the process is ended then."""
    processes: int = 1
    say: Callable[[str], None] = say_on_stdout
    """Of phases that take long."""

    @classmethod
    def of(cls, settings: StageSettings, world: World) -> Watch:
        training = settings.training
        stops = training.on_stall == "stop"
        return cls(settings.stage_dir, training.stall_seconds, stops, world.processes)


@contextmanager
def watching(watch: Watch, machines: Alone = ALONE) -> Iterator[None]:
    """The phases of the block announce themselves; `watch.limit` seconds without a beat are said, with the
    stacks of all ranks in `stalls.txt`."""
    rank = int(os.environ.get("RANK", "0"))
    HEART.begin(partial(say_phase, watch.say) if rank == 0 else lambda *_: None)
    if not watch.limit:
        yield
        return
    watchdog = Watchdog(watch, rank, machines)
    watchdog.start()
    try:
        yield
    finally:
        watchdog.end()


class Watchdog(threading.Thread):
    """Of one rank. Rank 0 asks and speaks; where it cannot, the next one does."""

    def __init__(self, watch: Watch, rank: int, machines: Alone = ALONE) -> None:
        super().__init__(name="watchdog", daemon=True)
        self.machines = machines
        self.limit, self.stops, self.processes = watch.limit, watch.stops, watch.processes
        self.rank, self.say = rank, watch.say
        self.files = StallFiles(watch.folder)
        self.tick = min(LONGEST_TICK, self.limit / LOOKS_PER_LIMIT)
        self._last_resort = LastResort(self.limit, rank, self.files.stacks, stops=self.stops)
        self._over = threading.Event()
        self._first_due = self._due = self.limit * (1 + TURN * rank)
        self._said_at = -1
        """The beat after which nothing moved, as was said; -1: nothing was."""
        self._named = 0.0

    def run(self) -> None:
        if self.processes > 1 and self.rank == 0:
            self.files.clear()
        elif self.processes > 1:
            self.files.pass_over()
        looked, modules = time.monotonic(), len(sys.modules)
        while not self._over.wait(self.tick):
            self._last_resort.put_off()
            stood_still = time.monotonic() - looked - self.tick
            if stood_still > max(self.tick, STOPPED):
                HEART.forgive(stood_still)
            if HEART.waits or len(sys.modules) != modules:  # for a person; libraries that are being imported
                beat()
            if request := self.files.asked():
                self._answer(request)
            else:
                self._name_long_phase()
                self._look()
            looked, modules = time.monotonic(), len(sys.modules)

    def end(self) -> None:
        self._over.set()
        self._last_resort.end()
        self.join(ANSWER_SECONDS)
        self._say_that_it_moves()  # a short run may be over before the next look

    def _say_that_it_moves(self) -> None:
        if self._said_at not in (-1, HEART.beats):
            print("  it moves again", file=sys.stderr, flush=True)
            self._said_at, self._due = -1, self._first_due

    def _look(self) -> None:
        self._say_that_it_moves()
        silent = time.monotonic() - HEART.moved
        if silent >= self._due:
            reports = self._ask()
            if reports[self.rank].beats != HEART.beats:  # it moved meanwhile
                self._due = self._first_due
            elif any(report.silent < self.limit for report in reports.values()):  # a rank is at work
                self._due = silent + self.limit / 4
            else:
                self._said_at, self._due = HEART.beats, 2 * silent
                self._tell(silent, reports)

    def _ask(self) -> dict[int, Report]:
        """Reports of all ranks that answer."""
        request = self.files.ask() if self.processes > 1 else 0
        own = {self.rank: self._report()}
        if not request:
            return own
        others = set(range(self.processes)) - {self.rank}
        patience = ANSWER_SECONDS + 2 * self.tick
        return own | self.files.answers(request, others, patience, self._last_resort.put_off)

    def _tell(self, silent: float, reports: Mapping[int, Report]) -> None:
        """First what is known, then the file: its disk may be what hangs."""
        compiles = any(report.seen.kind == "compiling" for report in reports.values())
        stops = self.stops and not (compiles and silent < COMPILER_LIMITS * self.limit)
        level, ends = ("ERROR", "stops") if stops else ("WARNING", "goes on")
        text = "\n".join(
            [
                f"[{level}] nothing has moved for {readable_duration(silent)} in: {reports[self.rank].where}",
                *(f"    {line}" for line in verdict(reports, self.processes)),
                f"    stacks: {self.files.stacks}; the run {ends} (SFT_STALL_SECONDS, SFT_ON_STALL)",
            ]
        )
        if stops:
            say_last(text)
        else:
            print(text, file=sys.stderr, flush=True)
        self.files.keep(text, reports.values())
        if stops:
            self.machines.ends_with(text)
            if self.processes > 1:
                self.files.stop()
            os._exit(1)  # the main thread cannot be reached: it hangs

    def _answer(self, request: int) -> None:
        if self.files.stopped():
            say_last("ended, since nothing moved", follows=True)
            os._exit(1)
        self.files.answer(request, self._report())
        self._due = max(self._due, time.monotonic() - HEART.moved + self.limit)  # it was another's turn

    def _report(self) -> Report:
        where, beats, silent = HEART.where, HEART.beats, time.monotonic() - HEART.moved
        evidence = collect()
        seen = judge(evidence, processes=self.processes)
        place = f"process {os.getpid()} on {socket.gethostname()}"
        return Report(self.rank, where, beats, silent, seen, evidence.stacks, place)

    def _name_long_phase(self) -> None:
        entered, name = HEART.entered, HEART.phase
        if (
            self.rank == 0
            and name in SETTING_UP
            and entered != self._named
            and time.monotonic() - entered >= LONG_PHASE
        ):
            self._named = entered
            self.say(f"  {name} …")
