"""Which tokens of a row are learned, and what is cut from a row that is too long. Pure functions."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lib.data.encoded import EncodedRow
from lib.data.rows import Example
from lib.data.turns import Turn
from lib.settings.schema import DataSettings


@dataclass(frozen=True)
class EncodingRules:
    """What the settings say about masks and lengths."""

    max_seq_len: int
    """Tokens."""
    mask_cot: bool
    """Learn only the last answer, from its output marker on."""
    output_markers: tuple[str, ...]
    output_learn_mode: str
    """after_marker | from_marker."""

    @classmethod
    def of(cls, data: DataSettings) -> "EncodingRules":
        return cls(data.max_seq_len, data.mask_cot, tuple(data.output_markers), data.output_learn_mode)


@dataclass(frozen=True)
class RenderedRow:
    """A row as text, and where the answers stand in it."""

    example: Example
    text: str
    turns: tuple[Turn, ...]


def mask_row(
    row: RenderedRow, ids: list[int], start_of: Callable[[int], int], rules: EncodingRules, bos_id: int | None
) -> EncodedRow:
    """The row with its mask, cut to the length allowed.

    `start_of` gives the character of `row.text` at which a token starts. A token is learned when it starts
    inside a learned span: one that straddles the end of an output marker is not. A row in which nothing but
    end-of-turn tokens and white space would be learned is `nothing_supervised`.
    """

    def first_token_at(character: int) -> int:
        # By bisection: reading the offsets of every token would take longer than tokenising.
        return bisect_left(range(len(ids)), character, key=start_of)

    supervised = [False] * len(ids)
    has_content = False
    for begin, turn in _learned(row, rules):
        # The end-of-turn token is learned even where a token before it reaches over the marker.
        first = min(first_token_at(begin), first_token_at(turn.closing))
        last = first_token_at(turn.end)
        supervised[first:last] = [True] * (last - first)
        has_content = has_content or bool(first < last and row.text[start_of(first) : turn.closing].strip())
    answer_end = first_token_at(row.turns[-1].end)
    encoded = EncodedRow(
        row_id=row.example.row_id,
        source=row.example.source,
        labels=row.example.labels,
        status="ok" if has_content else "nothing_supervised",
        input_ids=ids,
        supervised=supervised,
        answer_tokens=answer_end - first_token_at(row.turns[-1].start),
    )
    if not has_content or len(ids) <= rules.max_seq_len:
        return encoded
    turn_starts = [first_token_at(turn.start) for turn in row.turns]
    return _cut(encoded, turn_starts, answer_end, rules.max_seq_len, bos_id)


def learn_from(text: str, turn: Turn, rules: EncodingRules) -> int:
    """The character from which the last answer is learned: its earliest output marker, else its start."""
    found = [
        (text.find(marker, turn.start, turn.closing), marker) for marker in rules.output_markers if marker
    ]
    # Of markers at the same place the longest is the one that was meant.
    places = sorted((place, -len(marker)) for place, marker in found if place >= 0)
    if not places:
        return turn.start
    place, negative_length = places[0]
    return place if rules.output_learn_mode == "from_marker" else place - negative_length


def _learned(row: RenderedRow, rules: EncodingRules) -> list[tuple[int, Turn]]:
    """(first learned character, turn) of every turn that is learned."""
    if row.example.text is not None or not rules.mask_cot:
        return [(turn.start, turn) for turn in row.turns]
    last = row.turns[-1]
    return [(learn_from(row.text, last, rules), last)]


def _cut(row: EncodedRow, turn_starts: Sequence[int], end: int, limit: int, bos_id: int | None) -> EncodedRow:
    """Cuts the prompt from the left, behind a beginning-of-sequence token.

    The whole last answer and one token of its prompt must fit, else the row is `too_long`. What follows the
    last end-of-turn token goes first. An earlier answer that loses its beginning is no longer learned.
    """
    kept_front = 1 if bos_id is not None and row.input_ids[0] == bos_id else 0
    if kept_front + 1 + row.answer_tokens > limit:
        return replace(row, status="too_long")
    begin = max(end - (limit - kept_front), kept_front)
    unbroken = next(start for start in turn_starts if start >= begin)
    supervised = [False] * (unbroken - begin) + row.supervised[unbroken:end]
    return replace(
        row,
        status="truncated" if begin > kept_front else "ok",
        input_ids=row.input_ids[:kept_front] + row.input_ids[begin:end],
        supervised=row.supervised[:kept_front] + supervised,
        cut_tokens=begin - kept_front,
    )
