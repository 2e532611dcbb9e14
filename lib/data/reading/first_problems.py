"""The first few of many similar problems, and how many there were in all."""

from collections.abc import Iterable

from lib.settings.errors import Problem

SHOWN = 5


class FirstProblems:
    """Collects problems of one kind (broken lines, rows that fit no format): the first 5 and a count."""

    def __init__(self) -> None:
        self.total = 0
        self.first: list[Problem] = []

    def add(self, problem: Problem) -> None:
        self.total += 1
        if len(self.first) < SHOWN:
            self.first.append(problem)

    def extend(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.add(problem)

    def all_shown(self, where: str, noun: str, out_of: int | None = None) -> tuple[Problem, ...]:
        """The first problems; when there were more, a last one that gives the total."""
        if self.total <= SHOWN:
            return tuple(self.first)
        rest = f"{self.total - SHOWN} more like these: {self.total} {noun} in all"
        return (*self.first, Problem(where, value=rest + (f" of {out_of}" if out_of else "")))
