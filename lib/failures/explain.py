"""From an error to what is known of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lib.failures.known import KNOWN, KnownFailure
from lib.settings.errors import printable, shortened


@dataclass(frozen=True)
class Explanation:
    """A known failure, and the words that it was recognised by."""

    failure: KnownFailure
    said: str

    def lines(self, headline: str, advice: Sequence[str] = ()) -> list[str]:
        """For the screen, the remedy first. `advice` is what the memory estimate adds to it."""
        remedy = self.failure.remedy
        if self.failure.about_memory and not advice:
            advice = ("SFT_PER_DEVICE_TRAIN_BS (raise SFT_GRAD_ACCUM instead), SFT_MAX_SEQ_LEN, SFT_LORA_R",)
        shown = [f"{headline}: {self.failure.name}", f"    remedy:   {remedy}"]
        if self.failure.about_memory:
            shown += [f"              {line}" for line in advice]
        shown += [f"    cause:    {self.failure.cause}", f"    said:     {self.said}"]
        return [printable(line) for line in shown]


def explain(error: BaseException) -> Explanation | None:
    """What the table knows of an error, of what caused it first; None for an unknown one."""
    for words in reversed([f"{type(part).__name__}: {part}" for part in _chain(error)]):
        if found := explain_words(words):
            return found
    return None


def explain_words(words: str) -> Explanation | None:
    """The same for a text: an error as it was printed, or how a process ended."""
    for failure in KNOWN:
        if re.search(failure.pattern, words, re.IGNORECASE | re.DOTALL):
            return Explanation(failure, shortened(_telling_line(failure, words)))
    return None


def known(name: str) -> KnownFailure:
    """A row of the table by its name."""
    return next(failure for failure in KNOWN if failure.name == name)


def _telling_line(failure: KnownFailure, words: str) -> str:
    """The line that matched, else the first one."""
    lines = [line for line in words.splitlines() if line.strip()]
    matching = (line for line in lines if re.search(failure.pattern, line, re.IGNORECASE))
    return next(matching, lines[0] if lines else "")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on. Its circles, which Python allows, end it."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
