"""What was asked, what the model said, and what was found in it. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lib.evaluation.tally import Tally

FENCE = "```"
THINKING, THOUGHT = "<think>", "</think>"


@dataclass(frozen=True)
class Question:
    """A held-out row: the prompt as tokens and as text, the reference answer, the labels to group by."""

    row_id: str
    prompt_ids: list[int]
    reference: str
    labels: dict[str, str]
    prompt: str = ""


@dataclass(frozen=True)
class Answer:
    """What the model said. `stopped` is false when it ran into the token limit."""

    question: Question
    text: str
    tokens: int
    stopped: bool


@dataclass(frozen=True)
class Judgement:
    """One answer held against its reference."""

    tally: Tally
    verdict: dict[str, Any] = field(default_factory=dict)
    """For people: what is missing, too much or wrong. Holds only what strict JSON can carry."""
    document: str = ""
    """The part of the answer that was judged."""


def spoken(text: str) -> str:
    """What follows the last `</think>`; nothing when the model never came to the end of its thoughts."""
    said = text.rpartition(THOUGHT)[2]
    return "" if said.lstrip().startswith(THINKING) else said


def answer_part(text: str, markers: Sequence[str]) -> str:
    """The document inside an answer: after the last marker, within the first code fence there."""
    body = after_marker(text, markers)
    fenced = _fenced(body.split("\n"))
    return (body if fenced is None else fenced).strip()


def after_marker(text: str, markers: Sequence[str]) -> str:
    """What is said after the last marker; all that is said where there is none."""
    said = spoken(text)
    end = max((said.rfind(marker) + len(marker) for marker in markers if marker in said), default=0)
    return said[end:]


def _fenced(lines: Sequence[str]) -> str | None:
    """The lines inside the first fence; None without one, or when it is never closed.

    Line by line, because a regular expression takes time that is quadratic in the number of open fences.
    """
    start = next((i for i, line in enumerate(lines) if line.lstrip(" \t").startswith(FENCE)), len(lines))
    end = next((i for i in range(start + 1, len(lines)) if lines[i].strip(" \t\r") == FENCE), None)
    return None if end is None else "\n".join(lines[start + 1 : end])
