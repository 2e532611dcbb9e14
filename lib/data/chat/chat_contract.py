"""What a chat template and its tokenizer make of a conversation, written down and compared.

Two templates are the same for a model when they write the same tokens. So what is kept of a template is
what it writes for a few probe conversations, the tokens at which an answer ends, and what becomes of
`<think>` blocks.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

from lib.data.chat.chat_format import ChatFormat
from lib.data.chat.chat_template import TEMPLATE_ERRORS
from lib.data.reading.rows import Message
from lib.settings.errors import InputError

REASONING = "Eleven is prime."
_SYSTEM = Message("system", "Be brief.")
_QUESTION, _SECOND_QUESTION = Message("user", "Is eleven prime?"), Message("user", "And twelve?")
_ANSWER, _SECOND_ANSWER = Message("assistant", "Yes."), Message("assistant", "No.")
_THOUGHT_ANSWER = Message("assistant", f"<think>\n{REASONING}\n</think>\n\nYes.")
# Name → conversation, and whether the assistant is to answer next.
PROBES: Mapping[str, tuple[Sequence[Message], bool]] = {
    "a question": ([_QUESTION], True),
    "a question under a system message": ([_SYSTEM, _QUESTION], True),
    "an answer": ([_QUESTION, _ANSWER], False),
    "an answer under a system message": ([_SYSTEM, _QUESTION, _ANSWER], False),
    "two turns": ([_SYSTEM, _QUESTION, _ANSWER, _SECOND_QUESTION, _SECOND_ANSWER], False),
    "a <think> block in the last answer": ([_QUESTION, _THOUGHT_ANSWER], False),
    "a <think> block in an earlier answer": ([_QUESTION, _THOUGHT_ANSWER, _SECOND_QUESTION], True),
}
SHOWN_BEFORE, SHOWN_AFTER = 12, 48


class Difference(NamedTuple):
    """One thing that two contracts disagree about; `theirs` is that of the other one."""

    what: str
    ours: str
    theirs: str


@dataclass(frozen=True)
class ChatContract:
    """`probes`: name → text as written. `tokens`: name → sha256 of its token ids. `thinking`: where → what
    becomes of a `<think>` block there."""

    probes: Mapping[str, str]
    tokens: Mapping[str, str]
    end_tokens: tuple[str, ...]
    thinking: Mapping[str, str]

    @cached_property
    def sha256(self) -> str:
        return _sha256(asdict(self))

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "sha256": self.sha256}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return cls(
            probes=dict(content["probes"]),
            tokens=dict(content["tokens"]),
            end_tokens=tuple(content["end_tokens"]),
            thinking=dict(content["thinking"]),
        )

    def differences(self, other: "ChatContract") -> list[Difference]:
        """The first probe that is written otherwise, from where on; end tokens; `<think>` blocks; and where
        all texts are the same, the first that is cut into other tokens."""
        found = [*self._first_text(other), *self._end_tokens(other), *self._thinking(other)]
        return found or [*self._first_tokens(other)]

    def _first_text(self, other: "ChatContract") -> Iterator[Difference]:
        for name, text in self.probes.items():
            theirs = other.probes.get(name, "")
            if text != theirs:
                yield Difference(f"what is written for {name}", *_around_first_difference(text, theirs))
                return

    def _end_tokens(self, other: "ChatContract") -> Iterator[Difference]:
        if self.end_tokens != other.end_tokens:
            yield Difference("end tokens", *(" ".join(c.end_tokens) or "none" for c in (self, other)))

    def _thinking(self, other: "ChatContract") -> Iterator[Difference]:
        for where, what in self.thinking.items():
            if what != other.thinking.get(where):
                yield Difference(f"a <think> block {where}", what, other.thinking.get(where, "unknown"))

    def _first_tokens(self, other: "ChatContract") -> Iterator[Difference]:
        for name, digest in self.tokens.items():
            theirs = other.tokens.get(name, "")
            if digest != theirs:
                yield Difference(f"the token ids of {name}", f"sha256 {digest[:12]}", f"sha256 {theirs[:12]}")
                return


def chat_contract(chat: ChatFormat) -> ChatContract:
    """The contract of a template with its tokenizer. A conversation that the template refuses is a part of
    it."""
    written = {name: _written(chat, *probe) for name, probe in PROBES.items()}
    texts = (chat.end_of_turn, chat.special_tokens.get("eos_token", ""))
    return ChatContract(
        probes=written,
        tokens={name: _sha256(chat.ids_of(text)) for name, text in written.items()},
        end_tokens=tuple(text for text in dict.fromkeys(texts) if text),
        thinking=_thinking(written),
    )


def _written(chat: ChatFormat, messages: Sequence[Message], answers_next: bool) -> str:
    try:
        return chat.render(messages, answers_next, on_a_fixed_day=True)
    except (InputError, *TEMPLATE_ERRORS) as error:
        return f"refused: {' '.join(str(error).split())}"


def _thinking(written: Mapping[str, str]) -> dict[str, str]:
    """The policy in words; what it rests on is in the probes."""
    return {
        "in the last answer": _kept(written["a <think> block in the last answer"]),
        "in an earlier answer": _kept(written["a <think> block in an earlier answer"]),
        "in an answer without one": _opened(written["an answer"]),
        "where an answer begins": _opened(written["a question"]),
    }


def _kept(text: str) -> str:
    if REASONING not in text:
        return "stripped"
    return "kept" if f"<think>\n{REASONING}\n</think>" in text else "rewritten"


def _opened(text: str) -> str:
    if "<think>" not in text:
        return "not written"
    return "an empty one is written" if "</think>" in text else "opened"


def _around_first_difference(ours: str, theirs: str) -> tuple[str, str]:
    """Both texts from just before the place where they part, as Python writes them."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(ours), len(theirs)))
    start = max(at - SHOWN_BEFORE, 0)
    return _piece(ours, start, at), _piece(theirs, start, at)


def _piece(text: str, start: int, at: int) -> str:
    piece = text[start : at + SHOWN_AFTER]
    return f"{'…' if start else ''}{piece!r}{'…' if at + SHOWN_AFTER < len(text) else ''}"


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
