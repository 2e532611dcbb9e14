"""The order that a stage's settings ask for, over the rows that it trains on, and which of them share a
sequence."""

from collections import Counter
from collections.abc import Sequence

from lib.data.chat.encoded import EncodedRow
from lib.data.order.order import TrainingOrder, complexity_of
from lib.data.order.packing import Pack, PackCount, pack_rows
from lib.data.reading.rows import Example
from lib.settings.errors import InputError, Problem
from lib.settings.schema import StageSettings


def pack_stage(
    settings: StageSettings, rows: Sequence[Example], encoded: Sequence[EncodedRow | None]
) -> tuple[tuple[Pack, ...], PackCount | None]:
    """The sequences of these draws, as positions among them, and how full they are; nothing where SFT_PACKING
    is off. In a plan, lengths of rows that it did not encode (None) are guessed from their characters."""
    if not settings.data.packing:
        return (), None
    lengths, capacity = token_lengths(rows, encoded, settings.data.max_seq_len), settings.data.max_seq_len
    packs = pack_rows(lengths, capacity=capacity, seed=settings.seed)
    return packs, PackCount.of(lengths, packs, capacity)


def token_lengths(rows: Sequence[Example], encoded: Sequence[EncodedRow | None], longest: int) -> list[int]:
    """Tokens of each row; of one that is not encoded, by the characters a token has in those that are."""
    known = [(row.characters, own.tokens) for row, own in zip(rows, encoded, strict=True) if own]
    per_character = sum(tokens for _, tokens in known) / max(sum(characters for characters, _ in known), 1)
    return [
        own.tokens if own else min(max(round(row.characters * per_character), 1), longest)
        for row, own in zip(rows, encoded, strict=True)
    ]


def stage_order(
    settings: StageSettings,
    rows: Sequence[Example],
    encoded: Sequence[EncodedRow | None],
    *,
    processes: int,
) -> tuple[TrainingOrder, list[str]]:
    """The order of these draws, and notices. By length: tokens, guessed for rows that a plan did not encode.
    By complexity: InputError for rows that declare none (strict; lenient, they come last)."""
    data, notices = settings.data, list[str]()
    if settings.training.group_by_length:
        lengths = token_lengths(rows, encoded, data.max_seq_len)
        step = settings.training.micro_batch * settings.training.grad_accum * processes
        return TrainingOrder(len(rows), settings.seed, lengths=tuple(lengths), together=step), notices
    if data.order == "shuffled":
        return TrainingOrder(len(rows), settings.seed), notices
    if data.order == "length":
        difficulty = tuple(map(float, token_lengths(rows, encoded, data.max_seq_len)))
    else:
        levels = [complexity_of(row.labels, data.order_levels) for row in rows]
        problems = _unknown_levels(rows, levels, settings)
        if problems and settings.strict:
            raise InputError(problems)
        notices = [f"[WARNING] SFT_ORDER: {problem.value}; they are trained last" for problem in problems]
        difficulty = tuple(float("inf") if level is None else level for level in levels)
    return TrainingOrder(len(rows), settings.seed, difficulty, data.order_pacing), notices


def _unknown_levels(
    rows: Sequence[Example], levels: Sequence[float | None], settings: StageSettings
) -> list[Problem]:
    unknown = Counter(
        next((label.value for label in row.labels if label.field == "complexity"), "none declared")
        for row, level in zip(rows, levels, strict=True)
        if level is None
    )
    if not unknown:
        return []
    found = ", ".join(f"{value} ({count})" for value, count in unknown.most_common(5))
    return [
        Problem(
            where="data sets of the mix",
            key="SFT_ORDER",
            value=f"complexity; {unknown.total()} of {len(rows)} draws have none that is known: {found}",
            expected="a level of SFT_ORDER_LEVELS or a number as complexity in every row's metadata: "
            + ", ".join(settings.data.order_levels),
            remedy="add the level to SFT_ORDER_LEVELS, declare it in the rows, or set SFT_ORDER=length",
        )
    ]
