"""What a model is asked and what it says. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """A held-out row: the prompt as text and tokens, the reference answer, and the labels to group by."""

    row_id: str
    prompt: str
    prompt_ids: list[int]
    reference: str
    labels: dict[str, str]


@dataclass(frozen=True)
class Answer:
    """What the model said. `stopped` is false when it ran into the token limit."""

    question: Question
    text: str
    tokens: int
    stopped: bool
