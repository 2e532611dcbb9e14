"""SIGINT and SIGTERM: a run that trains saves at the end of its step and stops; any other stops at once."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

STOPPING = (signal.SIGINT, signal.SIGTERM)
# prctl's number for the signal that a process gets when its parent has died.
PARENT_DEATH_SIGNAL = 1


GOES_ON = "interrupted; the same command goes on from what is done"


class Interrupted(KeyboardInterrupt):
    """A signal ends the run; `said` is where it stands, and empty where another process says it."""

    def __init__(self, number: int, said: str = GOES_ON) -> None:
        super().__init__(number, said)
        self.number, self.said = number, said

    @property
    def exit_code(self) -> int:
        return 128 + self.number


REPEATED_SECONDS = 3.0
"""In which a worker may be told twice of one wish: by the scheduler of a cluster and by its launcher."""


class StopSignals:
    """What SIGINT and SIGTERM do in this process. A second one ends it at once, whatever it does."""

    def __init__(self) -> None:
        self._heard_again_from = 0.0
        self.received = 0
        """Number of the signal that has come and is still to be obeyed."""
        self._can_wait = False

    @classmethod
    def installed(cls) -> Self:
        """For this process. A signal that is ignored stays so: a shell starts background jobs deaf to
        SIGINT."""
        signals = cls()
        for number in STOPPING:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, signals._handle)
        if "LOCAL_RANK" in os.environ and sys.platform == "linux":
            # A worker lives in a session of its own: it would train on when its launcher is gone.
            ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGTERM)
        return signals

    def _handle(self, number: int, _: FrameType | None) -> None:
        repeatable = "LOCAL_RANK" in os.environ
        self._heard_again_from = time.monotonic() + REPEATED_SECONDS
        for each in STOPPING:
            signal.signal(each, self._again if repeatable else signal.SIG_DFL)
        self.received = number
        if not self._can_wait:
            raise Interrupted(number)

    def _again(self, number: int, _: FrameType | None) -> None:
        if time.monotonic() >= self._heard_again_from:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    @contextmanager
    def at_step_boundaries(self) -> Iterator[None]:
        """In the block a signal is only noted; who runs steps asks for it after each."""
        with self._waiting(True):
            yield

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """In the block, inside of one of the other kind, a signal raises Interrupted where it comes."""
        with self._waiting(False):
            yield

    @contextmanager
    def _waiting(self, can_wait: bool) -> Iterator[None]:
        before, self._can_wait = self._can_wait, can_wait
        try:
            yield
        finally:
            self._can_wait = before


def say_end(interrupt: KeyboardInterrupt) -> None:
    """Tell the person who ended the command."""
    if said := said_of(interrupt):
        print(said, file=sys.stderr, flush=True)


def said_of(interrupt: KeyboardInterrupt) -> str:
    return interrupt.said if isinstance(interrupt, Interrupted) else "interrupted"


def code_of(interrupt: KeyboardInterrupt) -> int:
    """Exit code of a command that was ended so."""
    return interrupt.exit_code if isinstance(interrupt, Interrupted) else 128 + signal.SIGINT
