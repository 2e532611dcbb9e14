"""How a case of hostile input may end: in a result, or in an InputError that a person can act on; in time."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from lib.settings import InputError

LIMIT_SECONDS = 10.0


class HangError(BaseException):
    """Not an Exception: nothing in the program may catch it."""


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """HangError after LIMIT_SECONDS of this process's own time: a busy machine does not count."""

    def hang(_signal: int, _frame: FrameType | None) -> None:
        raise HangError(f"still busy after {LIMIT_SECONDS:g} s")

    former = signal.signal(signal.SIGVTALRM, hang)
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, former)


def assert_helpful(error: InputError) -> None:
    """Every problem names its place, a key or a line or a row, what is expected and how to mend it; all of
    it can be printed."""
    said = str(error)
    assert all(character.isprintable() or character == "\n" for character in said), repr(said)
    said.encode()
    for problem in error.problems:
        is_count = "more like these" in problem.value
        named = problem.key or ":" in problem.where or "#" in problem.where
        assert problem.where, problem
        assert is_count or (named and problem.expected and problem.remedy), problem
