"""What is wrong with the user's input: every problem found, each with its place and its remedy."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

SHOWN_CHARACTERS = 200
SECRET_WORDS = "token|secret|password|passwd|pwd|passphrase|api_?key|access_?key|private_?key|credential"
SECRET_NAME = rf"[\w.-]*(?:{SECRET_WORDS})s?[\w.-]*"
LEAST_SECRET = 6
"""Characters; shorter values would be found everywhere."""
FOLDERS = frozenset({"PWD", "OLDPWD"})
"""Variables of every shell that are named like a password."""


@dataclass(frozen=True)
class Problem:
    """One wrong thing.

    `where` is `file:line`, "environment", "--set", a path or a data set; any other field may be empty.
    """

    where: str
    key: str = ""
    value: str = ""
    expected: str = ""
    remedy: str = ""

    def render(self) -> str:
        """A headline and up to three indented lines; a long value is shortened."""
        headline = ": ".join(part for part in (self.where, self.key) if part)
        details = (("given", shortened(self.value)), ("expected", self.expected), ("remedy", self.remedy))
        lines = [f"    {label + ':':<10}{text}" for label, text in details if text]
        return printable("\n".join([headline, *lines]))


class InputError(Exception):
    """The user's input is wrong. Commands print every problem and exit with 2, without a traceback."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        # The tuple is the only argument, so that the error survives pickling between processes.
        super().__init__(self.problems)

    @classmethod
    def of(cls, *, where: str, key: str = "", value: str = "", expected: str = "", remedy: str = "") -> Self:
        """The error of one single problem."""
        return cls((Problem(where, key, value, expected, remedy),))

    def __str__(self) -> str:
        return "\n".join(problem.render() for problem in self.problems)


class RunError(Exception):
    """The run cannot go on, and neither input nor code are to blame: a disk is full, say. Commands print the
    message, which says what to do, and exit with 1, without a traceback."""

    follows = False
    """Whether it only comes of another process's failure."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem)

    def __str__(self) -> str:
        return self.problem.render()


class Problems:
    """Collects problems, so that the user sees all of them and not only the first."""

    def __init__(self) -> None:
        self._found: list[Problem] = []

    def add(
        self, where: str, *, key: str = "", value: str = "", expected: str = "", remedy: str = ""
    ) -> None:
        self._found.append(Problem(where, key, value, expected, remedy))

    def extend(self, problems: Iterable[Problem]) -> None:
        self._found.extend(problems)

    def about(self, key: str) -> bool:
        """Whether something is already known to be wrong with this key."""
        return any(problem.key == key for problem in self._found)

    def raise_if_any(self) -> None:
        """Raises InputError with everything collected."""
        if self._found:
            raise InputError(self._found)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def shortened(value: str) -> str:
    """The value on one line, at most 200 characters of it, passwords in addresses hidden."""
    line = without_password(" ".join(value.split()))
    if len(line) <= SHOWN_CHARACTERS:
        return line
    return f"{line[:SHOWN_CHARACTERS]}… ({len(line)} characters)"


def printable(text: str) -> str:
    """Control characters and lone surrogates escaped: printing must not fail or move the cursor."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def without_password(text: str) -> str:
    """`https://user:secret@host` as `https://user:***@host`, whatever the password is made of; a name alone
    may be a token and goes too. So do `password=…` and its like after a `?`, `&` or `;`."""
    text = re.sub(r"(://[^/@:\s]*):[^\s'\"]*@", r"\1:***@", text)
    text = re.sub(r"://[^/@:\s]+@", "://***@", text)
    return re.sub(rf"(?i)([?&;]{SECRET_NAME}=)[^&;\s'\"]+", r"\1***", text)


def without_secrets(text: str, environ: Mapping[str, str]) -> str:
    """The same without the values of variables whose names say that they are secret."""
    for name, value in environ.items():
        secret = re.fullmatch(SECRET_NAME, name, re.IGNORECASE) and name not in FOLDERS
        if secret and len(value) >= LEAST_SECRET:
            text = text.replace(value, "***")
    return text
