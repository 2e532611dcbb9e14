"""Where an answer differs from its reference, word by word. Plain data for a page to mark."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

LONGEST_TEXT = 20_000
"""Characters that are shown of one text."""
# Comparing costs about the product of both lengths: this much takes some hundredths of a second.
MOST_COMPARISONS = 500_000
# Scripts without spaces (Japanese) are compared character by character.
WORD = re.compile(r"[A-Za-z0-9_]+|[^\S\n]+|.", re.DOTALL)
LINE = re.compile(r"[^\n]*\n|[^\n]+")


@dataclass(frozen=True)
class Piece:
    text: str
    differs: bool
    """Not in the other text at this place."""


@dataclass(frozen=True)
class Difference:
    """Both texts, cut into pieces that are equal and pieces that are not."""

    reference: tuple[Piece, ...]
    answer: tuple[Piece, ...]
    note: str = ""
    """What was done for the sake of length; "" when nothing was."""

    @property
    def equal(self) -> bool:
        return not any(piece.differs for piece in (*self.reference, *self.answer))


def difference(reference: str, answer: str) -> Difference:
    """By words; long texts by lines; texts too long for that are shown without marks."""
    cut = max(len(reference), len(answer)) > LONGEST_TEXT
    note = f"Only the first {LONGEST_TEXT:,} characters are shown." if cut else ""
    reference, answer = reference[:LONGEST_TEXT], answer[:LONGEST_TEXT]
    for unit, remark in ((WORD, ""), (LINE, "Long texts are compared line by line.")):
        compared = _compare(unit.findall(reference), unit.findall(answer))
        if compared is not None:
            return Difference(*compared, note=f"{note} {remark}".strip())
    unmarked = "Too long to compare: differences are not marked."
    return Difference(
        _pieces([reference], False), _pieces([answer], False), note=f"{note} {unmarked}".strip()
    )


def _compare(left: Sequence[str], right: Sequence[str]) -> tuple[tuple[Piece, ...], tuple[Piece, ...]] | None:
    """None when it would take too long. What both begin and end with is set aside first."""
    start = _common_prefix(left, right)
    end = _common_prefix(left[start:][::-1], right[start:][::-1])
    middle_left, middle_right = left[start : len(left) - end], right[start : len(right) - end]
    if len(middle_left) * len(middle_right) > MOST_COMPARISONS:
        return None
    before, after = _pieces(left[:start], False), _pieces(left[len(left) - end :], False)
    marked_left, marked_right = _mark(middle_left, middle_right)
    return (*before, *marked_left, *after), (*before, *marked_right, *after)


def _mark(left: Sequence[str], right: Sequence[str]) -> tuple[list[Piece], list[Piece]]:
    marked_left: list[Piece] = []
    marked_right: list[Piece] = []
    for kind, a, b, c, d in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        marked_left += _pieces(left[a:b], kind != "equal")
        marked_right += _pieces(right[c:d], kind != "equal")
    return marked_left, marked_right


def _pieces(words: Sequence[str], differs: bool) -> tuple[Piece, ...]:
    text = "".join(words)
    return (Piece(text, differs),) if text else ()


def _common_prefix(left: Sequence[str], right: Sequence[str]) -> int:
    for position, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return position
    return min(len(left), len(right))
