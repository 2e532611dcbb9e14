"""Waiting for what comes, however busy the machine is. A deadline costs time only where a test fails."""

import time
from collections.abc import Callable

PATIENCE = 120.0
"""Seconds; what is waited for takes a few on an idle machine."""


def eventually(check: Callable[[], object], seconds: float = PATIENCE, *, pause: float = 0.02) -> None:
    """Asks until it is so, and fails when the time is over."""
    give_up = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < give_up, f"not within {seconds:g} s"
        time.sleep(pause)
