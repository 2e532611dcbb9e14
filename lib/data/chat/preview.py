"""Rows token by token with their mask, for a person to check what is learned."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, islice

from lib.data.chat.chat_format import ChatFormat
from lib.data.chat.encoded import EncodedRow
from lib.data.chat.masks import EncodingRules
from lib.data.reading.rows import Example

_LEARNED, _MASKED, _CUT, _RESET = "\x1b[32m", "\x1b[2m", "\x1b[2;9m", "\x1b[0m"
_BORDER = "│"


@dataclass(frozen=True)
class TokenView:
    """One token, or the few that share a character (byte tokens of Japanese text, for instance)."""

    text: str
    learned: bool
    cut: bool
    """Lost by truncation."""
    tokens: int


@dataclass(frozen=True)
class MaskedRow:
    """A row as it is learned: plain data, for a terminal or a page to show."""

    row_id: str
    source: str
    tokens: int
    """After truncation."""
    learned: int
    status: str
    views: tuple[TokenView, ...]

    def line(self) -> str:
        return f"{self.row_id}, {self.tokens} tokens, {self.learned} learned, {self.status}"


def masked_row(chat: ChatFormat, example: Example, rules: EncodingRules) -> MaskedRow:
    """Raises InputError when the chat template refuses the row."""
    row = chat.encode([example], rules).rows[0]
    views = tuple(token_views(chat, example, rules))
    return MaskedRow(row.row_id, row.source, len(row.input_ids), row.supervised_tokens, row.status, views)


def masked_rows(
    chat: ChatFormat, examples: Sequence[Example], rules: EncodingRules, *, limit: int
) -> tuple[MaskedRow, ...]:
    """The first `limit` distinct rows, the sources taking turns, without those that the template refuses."""
    usable = (
        example
        for example in _sources_in_turn(examples)
        if chat.encode([example], rules).rows[0].status != "unrenderable"
    )
    return tuple(masked_row(chat, example, rules) for example in islice(usable, limit))


def _sources_in_turn(examples: Sequence[Example]) -> list[Example]:
    taken: Counter[str] = Counter()
    turns: list[tuple[int, Example]] = []
    for example in {example.row_id: example for example in examples}.values():
        turns.append((taken[example.source], example))
        taken[example.source] += 1
    return [example for _, example in sorted(turns, key=lambda turn: turn[0])]


def preview_rows(chat: ChatFormat, examples: Sequence[Example], rules: EncodingRules, *, color: bool) -> str:
    """The rows as text for a terminal.

    In colour, learned tokens are green and the others dim; without, learned runs stand in ⟦…⟧. │ separates
    tokens, ↵ and → are a line end and a tab.
    """
    legend = "learned tokens: " + (
        f"{_LEARNED}green{_RESET}, others {_MASKED}dim{_RESET}" if color else "⟦…⟧"
    )
    parts = [f"{legend}; {_BORDER} between tokens, ↵ line end, ⇥ tab"]
    for number, example in enumerate(examples, start=1):
        row = masked_row(chat, example, rules)
        text = _colored(row.views) if color else _marked(row.views)
        parts.append(f"row {number}: {row.line()}\n{text}")
    return "\n\n".join(parts)


def token_views(chat: ChatFormat, example: Example, rules: EncodingRules) -> list[TokenView]:
    """The whole row before truncation. Raises InputError when the chat template refuses it."""
    row, encoding = chat.tokens_of(example, rules)
    encoded = chat.encode([example], rules).rows[0]
    learned = _learned_before_truncation(encoded, len(encoding.ids), chat.bos_id)
    views: list[TokenView] = []
    for first, last in _groups(encoding.offsets):
        start, end = encoding.offsets[first][0], max(offset[1] for offset in encoding.offsets[first:last])
        group = learned[first:last]
        cut = all(token is None for token in group)
        views.append(TokenView(_readable(row.text[start:end]), any(group), cut, last - first))
    return views


def _learned_before_truncation(row: EncodedRow, tokens: int, bos_id: int | None) -> list[bool | None]:
    """One per token of the whole row; None for those that truncation took."""
    front = 1 if row.cut_tokens and row.input_ids[0] == bos_id else 0
    kept = [*row.supervised[:front], *[None] * row.cut_tokens, *row.supervised[front:]]
    return kept + [None] * (tokens - len(kept))


def _groups(offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Index ranges of tokens that share characters."""
    groups: list[tuple[int, int]] = []
    reach = -1
    for i, (start, end) in enumerate(offsets):
        if groups and start < reach:
            groups[-1] = (groups[-1][0], i + 1)
        else:
            groups.append((i, i + 1))
        reach = max(reach, end)
    return groups


def _readable(text: str) -> str:
    """Line ends and tabs visible; control characters as pictures, so that no row can steer the terminal."""
    shown = []
    for character in text:
        if character == "\n":
            shown.append("↵\n")
        elif character in _PICTURES:
            shown.append(_PICTURES[character])
        elif unicodedata.category(character) in ("Cc", "Cf", "Cs"):
            shown.append(f"<U+{ord(character):04X}>")
        else:
            shown.append(character)
    return "".join(shown)


_PICTURES = {"\t": "⇥", "\r": "␍", "\x1b": "␛"}


def _colored(views: Sequence[TokenView]) -> str:
    def style(view: TokenView) -> str:
        return _CUT if view.cut else (_LEARNED if view.learned else _MASKED)

    return "".join(f"{code}{_joined(list(run))}{_RESET}" for code, run in groupby(views, key=style))


def _marked(views: Sequence[TokenView]) -> str:
    runs = [(learned, _joined(list(run))) for learned, run in groupby(views, key=lambda view: view.learned)]
    return "".join(f"⟦{text}⟧" if learned else text for learned, text in runs)


def _joined(views: Sequence[TokenView]) -> str:
    return _BORDER.join(view.text for view in views)
