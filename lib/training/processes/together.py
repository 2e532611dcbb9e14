"""The end of a run that all processes have decided on."""

from __future__ import annotations

from lib.settings.errors import Problem, RunError


def ended_together(problem: Problem, *, main: bool) -> BaseException:
    """What each process has to raise: rank 0 says why and ends with 1. The others end with 0: at another
    code the launcher would end rank 0 in the middle of its last words."""
    return RunError(problem) if main else SystemExit(0)
