"""What was said so far, as much of it as the model's context holds. Free of torch."""

from __future__ import annotations

from typing import NamedTuple

from lib.data.chat.chat_format import ChatFormat
from lib.data.reading.rows import Message


class Asked(NamedTuple):
    """A question as tokens, with what came before it."""

    prompt_ids: list[int]
    forgotten: int
    """Exchanges that had to go, oldest first."""
    cut: int
    """Tokens that had to go from the left of the question itself."""


class Conversation:
    """A system prompt, and exchanges of a question and its answer."""

    def __init__(self, system: str = "") -> None:
        self.system = system
        self.exchanges: list[tuple[str, str]] = []

    def ask(self, question: str, chat: ChatFormat, longest: int) -> Asked:
        """The question in at most `longest` tokens. What does not fit is forgotten for good: whole exchanges,
        then the beginning of the question."""
        forgotten = 0
        while len(ids := chat.prompt_ids(self._messages(question))) > longest and self.exchanges:
            del self.exchanges[0]
            forgotten += 1
        return Asked(ids[-longest:], forgotten, max(0, len(ids) - longest))

    def keep(self, question: str, answer: str) -> None:
        """What the next question follows."""
        self.exchanges.append((question, answer))

    def reset(self) -> None:
        """Forget everything but the system prompt."""
        self.exchanges.clear()

    def _messages(self, question: str) -> list[Message]:
        messages = [Message("system", self.system)] if self.system else []
        for asked, answered in self.exchanges:
            messages += [Message("user", asked), Message("assistant", answered)]
        return [*messages, Message("user", question)]
