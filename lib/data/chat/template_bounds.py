"""What a chat template may take. It comes with a model and is a program: jinja's sandbox keeps it away from
Python, but not from loops in loops, from texts of gigabytes or from numbers of a million digits.

Time and memory are bounded for each conversation that is rendered. The time limit ends Python code, which
nearly all of a template's work is; a single operation in C goes on to its end, over at most MOST_BYTES.
"""

import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import jinja2
import jinja2.filters
import jinja2.runtime
import jinja2.sandbox

LONGEST_SECONDS = 10.0
MOST_BYTES = 2**31
MOST_BITS = 10_000
"""Of a whole number: arithmetic with larger ones is one long operation."""
MOST_DIGITS = 100
_MEMORY = Path("/proc/self/statm")
_DATA_PAGES = 5
"""Field of that file: what RLIMIT_DATA counts."""


class BoundError(jinja2.TemplateRuntimeError):
    """The template broke a bound; the text says which."""


class BoundedSandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """A sandbox whose arithmetic stays small; loops and texts are left to `bounded`."""

    intercepted_binops = frozenset({"**", "*"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.filters["round"] = _round

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length()
            if (bits * max(right, 1) if operator == "**" else bits + right.bit_length()) > MOST_BITS:
                raise BoundError(f"a whole number of more than {MOST_BITS} bits")
        return super().call_binop(context, operator, left, right)


def _round(value: float, precision: int = 0, method: Any = "common") -> float:
    """Jinja's own takes 10 to the power of the precision."""
    if abs(precision) > MOST_DIGITS:
        raise BoundError(f"rounding to more than {MOST_DIGITS} digits")
    return jinja2.filters.do_round(value, precision, method)


@contextmanager
def bounded() -> Iterator[None]:
    """The block takes at most LONGEST_SECONDS and MOST_BYTES, or ends in a BoundError.

    The time limit needs the main thread, the memory limit Linux; elsewhere they are not set.
    """
    try:
        with nullcontext() if _watch.armed else many_bounded():
            _watch.began = time.monotonic()
            yield
    except MemoryError as error:
        raise BoundError(f"more than {MOST_BYTES / 2**30:g} GiB of memory") from error


@contextmanager
def many_bounded() -> Iterator[None]:
    """Around many `bounded` blocks, each of which then takes a microsecond instead of thirty; together they
    take at most MOST_BYTES."""
    with _time_limit(), _memory_limit():
        _watch.armed, _watch.began = True, time.monotonic()
        try:
            yield
        finally:
            _watch.armed = False


class _Watch:
    """Of this process: whether the limits are set, and when the present block began."""

    armed = False
    began = 0.0


_watch = _Watch()


@contextmanager
def _time_limit() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGALRM, _check_time)
    signal.setitimer(signal.ITIMER_REAL, LONGEST_SECONDS, LONGEST_SECONDS / 10)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def _check_time(_signal: int, _frame: FrameType | None) -> None:
    if time.monotonic() - _watch.began >= LONGEST_SECONDS:
        raise BoundError(f"longer than {LONGEST_SECONDS:g} s for one conversation")


@contextmanager
def _memory_limit() -> Iterator[None]:
    former = resource.getrlimit(resource.RLIMIT_DATA)
    try:
        used = int(_MEMORY.read_bytes().split()[_DATA_PAGES]) * resource.getpagesize()
    except OSError:
        yield
        return
    limit = used + MOST_BYTES
    if former[0] != resource.RLIM_INFINITY:
        limit = min(limit, former[0])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, former)
