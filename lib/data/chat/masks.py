"""Which tokens of a row are learned, and what is cut from a row that is too long. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lib.data.chat.encoded import EncodedRow, Status
from lib.data.chat.tokens import AnswerTokens, TokenRow
from lib.data.reading.rows import Example
from lib.settings.schema import DataSettings

Span = tuple[int, int]
"""The first index, and the one behind the last."""


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
class Mask:
    """What becomes of a row's tokens. Kept are the first `front` of them and those from `begin` to `end`."""

    status: Status
    front: int
    begin: int
    end: int
    learned: tuple[Span, ...]
    """Among the tokens that are kept, in order."""
    answer_tokens: int
    """Tokens of the last answer, end-of-turn token included."""

    @property
    def cut_tokens(self) -> int:
        """Tokens cut from the prompt's left."""
        return self.begin - self.front

    @property
    def tokens(self) -> int:
        return self.front + self.end - self.begin

    @property
    def supervised_tokens(self) -> int:
        return sum(last - first for first, last in self.learned)


def mask_row(example: Example, row: TokenRow, rules: EncodingRules, bos_id: int | None) -> EncodedRow:
    """The row with its mask, cut to the length allowed."""
    mask = mask_of(row.answers, len(row.ids), rules, plain=row.plain, bos=_starts_with(row.ids, bos_id))
    supervised = [False] * mask.tokens
    for first, last in mask.learned:
        supervised[first:last] = [True] * (last - first)
    return EncodedRow(
        row_id=example.row_id,
        source=example.source,
        labels=example.labels,
        status=mask.status,
        input_ids=[*row.ids[: mask.front], *row.ids[mask.begin : mask.end]],
        supervised=supervised,
        answer_tokens=mask.answer_tokens,
        cut_tokens=mask.cut_tokens,
    )


def mask_of(
    answers: Sequence[AnswerTokens], tokens: int, rules: EncodingRules, *, plain: bool, bos: bool
) -> Mask:
    """The mask of a row of so many tokens; `bos`: the first of them begins the sequence and is never cut.

    A token is learned when it starts inside a learned span: one that straddles the end of an output marker is
    not. A row in which nothing but end-of-turn tokens and white space would be learned is
    `nothing_supervised`.
    """
    last_only = rules.mask_cot and not plain
    counted = answers[-1:] if last_only else answers
    learned: list[Span] = []
    has_content = False
    for answer in counted:
        # The end-of-turn token is learned even where a token before it reaches over the marker.
        begin = learn_from(answer.text, rules) if last_only else 0
        first = min(answer.token_at(begin), answer.closing)
        if first < answer.end:
            learned.append((first, answer.end))
            said = answer.text[answer.starts[first - answer.first] :]
            has_content = has_content or bool(said.strip())
    last = answers[-1]
    answer_tokens = last.end - last.first
    if not has_content:
        return Mask("nothing_supervised", 0, 0, tokens, tuple(learned), answer_tokens)
    whole = Mask("ok", 0, 0, tokens, tuple(learned), answer_tokens)
    return whole if tokens <= rules.max_seq_len else _cut(whole, counted, rules.max_seq_len, int(bos))


def learn_from(answer: str, rules: EncodingRules) -> int:
    """The character from which an answer is learned: its earliest output marker, else its start."""
    found = [(answer.find(marker), marker) for marker in rules.output_markers if marker]
    # Of markers at the same place the longest is the one that was meant.
    places = sorted((place, -len(marker)) for place, marker in found if place >= 0)
    if not places:
        return 0
    place, negative_length = places[0]
    return place if rules.output_learn_mode == "from_marker" else place - negative_length


def _starts_with(ids: Sequence[int], bos_id: int | None) -> bool:
    return bos_id is not None and len(ids) > 0 and ids[0] == bos_id


def _cut(mask: Mask, answers: Sequence[AnswerTokens], limit: int, front: int) -> Mask:
    """Cuts the prompt from the left, behind a beginning-of-sequence token.

    The whole last answer and one token of its prompt must fit, else the row is `too_long`. What follows the
    last end-of-turn token goes first. An earlier answer that loses its beginning is no longer learned.
    """
    if front + 1 + mask.answer_tokens > limit:
        return replace(mask, status="too_long")
    end = answers[-1].end
    begin = max(end - (limit - front), front)
    unbroken = next(answer.first for answer in answers if answer.first >= begin)
    kept = [(first, min(last, front)) for first, last in mask.learned if first < front]
    moved = begin - front
    kept += [
        (max(first, unbroken) - moved, min(last, end) - moved)
        for first, last in mask.learned
        if last > unbroken and first < end
    ]
    status: Status = "truncated" if begin > front else "ok"
    return Mask(status, front, begin, end, tuple(kept), mask.answer_tokens)
