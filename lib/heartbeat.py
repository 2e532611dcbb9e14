"""What this process is doing and when it last moved.

Whoever does something long names it with `phase`, and calls `beat` between its parts. The watchdog
(lib/training/watchdog) looks at it from another thread; without one nobody does, and it costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Announce = Callable[[str, float], None]
"""Told of every phase that ends, with its seconds."""


class Heartbeat:
    def __init__(self) -> None:
        self.begin(lambda *_: None)

    def begin(self, announce: Announce) -> None:
        """Of a new run: nothing has been done."""
        self.phase, self.detail = "start", ""
        self.beats = 0
        self.moved = self.entered = time.monotonic()
        self.seconds: dict[str, float] = {}
        """By phase, in the order in which they ended."""
        self._announce = announce

    def beat(self, detail: str = "") -> None:
        self.detail = detail or self.detail
        self.beats += 1
        self.moved = time.monotonic()

    @contextmanager
    def in_phase(self, name: str) -> Iterator[None]:
        outer = self.phase, self.detail, self.entered
        self.phase, self.detail, self.entered = name, "", time.monotonic()
        self.beat()
        try:
            yield
        finally:
            seconds = time.monotonic() - self.entered
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
            self.phase, self.detail, self.entered = outer
            self.beat()
        self._announce(name, seconds)

    @property
    def where(self) -> str:
        """`training, step 12`."""
        return f"{self.phase}, {self.detail}" if self.detail else self.phase


HEART = Heartbeat()
"""Of this process."""
phase, beat = HEART.in_phase, HEART.beat
