"""What the phases of a run took, as a person reads it: one line at the first step, and slow ones at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

SETTING_UP = (
    "tokenise", "compile", "join processes", "merge", "load", "prove merge", "attach",
    "first forward", "first backward", "first optimizer step",
)  # fmt: skip
"""In the order in which a run goes through them."""
NOT_ALWAYS = {"compile", "join processes", "merge", "prove merge"}
NOTHING_DONE = 0.02
"""Seconds below which such a phase had nothing to do."""
FIRST = "first "
SLOW = 10.0
"""Seconds from which on a phase has a line of its own when it ends."""


def say_phase(say: Callable[[str], None], name: str, seconds: float) -> None:
    if name in SETTING_UP and seconds >= SLOW:
        say(f"  {name}: {_time(seconds)}")


def times_line(seconds: Mapping[str, float]) -> str:
    """`  phases: load 1.2 s, attach 0.1 s; first forward 0.31 s, backward 0.42 s, optimizer step 0.02 s`."""
    done = {name for name, took in seconds.items() if took >= NOTHING_DONE or name not in NOT_ALWAYS}
    known = [name for name in SETTING_UP if name in done]
    before = [f"{name} {_time(seconds[name])}" for name in known if not name.startswith(FIRST)]
    first = [f"{name.removeprefix(FIRST)} {_time(seconds[name])}" for name in known if name.startswith(FIRST)]
    parts = [", ".join(before), f"first {', '.join(first)}" if first else ""]
    return f"  phases: {'; '.join(part for part in parts if part)}"


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """For the record: to the millisecond."""
    return {name: round(value, 3) for name, value in seconds.items()}


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < SLOW else f"{seconds:,.0f} s"
