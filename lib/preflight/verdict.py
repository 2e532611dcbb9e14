"""What a check found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self

from lib.failures.known import KnownFailure
from lib.settings import Problem

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Verdict:
    """One line of the table. A failed one keeps the stage from running."""

    name: str
    """What was looked at."""
    state: State
    found: str
    remedy: str = ""
    problem: Problem | None = None
    """Of a failed one: the same as an input error says it."""

    @classmethod
    def ok(cls, name: str, found: str) -> Self:
        return cls(name, "ok", found)

    @classmethod
    def warning(cls, name: str, found: str, remedy: str = "") -> Self:
        return cls(name, "warning", found, remedy)

    @classmethod
    def failed(cls, name: str, problem: Problem) -> Self:
        about = " ".join(part for part in (problem.key, problem.value) if part)
        expected = f"expected {problem.expected}" if problem.expected else ""
        parts = (problem.where, about, expected)
        return cls(name, "failed", ": ".join(part for part in parts if part), problem.remedy, problem)

    @classmethod
    def known(cls, name: str, state: State, failure: KnownFailure, said: str) -> Self:
        """A row of the table of known failures; `said` is what it was recognised by."""
        problem = Problem(where=name, value=said, expected=failure.cause, remedy=failure.remedy)
        return cls(name, state, f"{said}: {failure.cause}", failure.remedy, problem)

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, "state": self.state, "found": self.found, "remedy": self.remedy}


def failures(verdicts: Iterable[Verdict]) -> list[Problem]:
    """The problems of those that failed."""
    return [verdict.problem for verdict in verdicts if verdict.state == "failed" and verdict.problem]


def warnings(verdicts: Iterable[Verdict]) -> list[str]:
    """The others that are not in order, as lines for the screen and the record."""
    return [
        f"[WARNING] {verdict.name}: {verdict.found}" + (f" ({verdict.remedy})" if verdict.remedy else "")
        for verdict in verdicts
        if verdict.state == "warning"
    ]


def verdicts_of(name: str, problems: Iterable[Problem], notices: Iterable[str], fine: str) -> list[Verdict]:
    """Problems and notices as verdicts under one name; `fine` is what is found where there are none."""
    found = [Verdict.failed(name, problem) for problem in problems]
    found += [Verdict.warning(name, notice.removeprefix("[WARNING] ")) for notice in notices]
    return found or [Verdict.ok(name, fine)]
