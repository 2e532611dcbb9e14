"""A row as tokens, before it is decided which of them are learned and what is cut."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast
from unicodedata import is_normalized

from tokenizers import Encoding, Tokenizer, normalizers

from lib.data.chat.turns import Turn


@dataclass(frozen=True)
class AnswerTokens:
    """One answer of a row. What masks are made of: neither text nor tokens outside of answers are needed."""

    first: int
    """Index of its first token in the row."""
    text: str
    """What the model says, without its end-of-turn token."""
    starts: Sequence[int]
    """The character at which each of its tokens starts, counted from the answer's first; those of the
    end-of-turn token are at the end of `text` or behind it."""

    def token_at(self, character: int) -> int:
        """Index in the row of the first token that starts at this character of the answer or behind it."""
        return self.first + bisect_left(self.starts, character)

    @property
    def closing(self) -> int:
        """Index in the row of the end-of-turn token; `end` where there is none."""
        return self.token_at(len(self.text))

    @property
    def end(self) -> int:
        """Index in the row of the token behind the answer."""
        return self.first + len(self.starts)


@dataclass(frozen=True)
class TokenRow:
    """A whole row, before truncation."""

    ids: Sequence[int]
    answers: tuple[AnswerTokens, ...]
    """In order: all of a row, or the last alone, as was asked for. Plain text is one."""
    plain: bool
    """Plain text, without any conversation."""


@dataclass(frozen=True)
class RenderedRow:
    """A row as text, and where its answers stand in it."""

    text: str
    turns: tuple[Turn, ...]
    plain: bool


class TextTokens(Protocol):
    """A text as tokens, none added."""

    @property
    def ids(self) -> Sequence[int]: ...

    def between(self, start: int, end: int) -> tuple[int, Sequence[int]]:
        """The index of the first token that starts at this character or behind it, and where, counted from
        there, it and the following ones that start before `end` do."""


@dataclass(frozen=True)
class AskedTokens:
    """Whose places are asked for one by one: reading all of them would take longer than tokenising."""

    encoding: Encoding

    @property
    def ids(self) -> Sequence[int]:
        ids: list[int] = self.encoding.ids
        return ids

    def between(self, start: int, end: int) -> tuple[int, Sequence[int]]:
        places = range(len(self.encoding))
        first, behind = (bisect_left(places, place, key=self._start_of) for place in (start, end))
        return first, tuple([self._start_of(token) - start for token in range(first, behind)])

    def _start_of(self, token: int) -> int:
        # Every token has its place: no post-processor adds any that is not in the text.
        return cast("tuple[int, int]", self.encoding.token_to_chars(token))[0]


def token_row(row: RenderedRow, tokens: TextTokens) -> TokenRow:
    return TokenRow(tokens.ids, tuple(_answer(row.text, turn, tokens) for turn in row.turns), row.plain)


def _answer(text: str, turn: Turn, tokens: TextTokens) -> AnswerTokens:
    first, starts = tokens.between(turn.start, turn.end)
    return AnswerTokens(first, text[turn.start : turn.closing], starts)


def encode_texts(tokenizer: Tokenizer, texts: list[str]) -> list[TextTokens]:
    """NFC of what is in that form already changes nothing, and a part of it is in that form too: it is left
    out then, which saves a sixth of the time."""
    normalizer = tokenizer.normalizer
    skips = isinstance(normalizer, normalizers.NFC) and all(is_normalized("NFC", text) for text in texts)
    if skips:
        tokenizer.normalizer = normalizers.Sequence([])
    try:
        return [AskedTokens(found) for found in tokenizer.encode_batch(texts, add_special_tokens=False)]
    finally:
        if skips:
            tokenizer.normalizer = normalizer
