"""The order that a stage's settings ask for, over the rows that it trains on, and which of them share a
sequence."""

from collections import Counter
from collections.abc import Sequence

from lib.data.encoding import Encoded
from lib.data.order.order import TrainingOrder, complexity_of
from lib.data.order.packing import Pack, PackCount, pack_rows
from lib.data.reading.rows import Example
from lib.settings.errors import InputError, Problem
from lib.settings.schema import StageSettings


def pack_stage(
    settings: StageSettings, rows: Sequence[Example], encoded: Encoded
) -> tuple[tuple[Pack, ...], PackCount | None]:
    """The sequences of these draws, as positions among them, and how full they are; nothing where SFT_PACKING
    is off. In a plan, lengths of rows that it did not encode are guessed from their characters."""
    if not settings.data.packing:
        return (), None
    lengths, capacity = token_lengths(rows, encoded, settings.data.max_seq_len), settings.data.max_seq_len
    packs = pack_rows(lengths, capacity=capacity, seed=settings.seed)
    return packs, PackCount.of(lengths, packs, capacity)


def token_lengths(rows: Sequence[Example], encoded: Encoded, longest: int) -> list[int]:
    """Tokens of each row; of one that is not encoded, by the characters a token has in those that are."""
    known = [row for row in rows if row.row_id in encoded]
    tokens = sum(encoded[row.row_id].tokens for row in known)
    per_character = tokens / max(sum(row.characters for row in known), 1)
    return [
        encoded[row.row_id].tokens
        if row.row_id in encoded
        else min(max(round(row.characters * per_character), 1), longest)
        for row in rows
    ]


def stage_order(
    settings: StageSettings, rows: Sequence[Example], encoded: Encoded, *, processes: int
) -> tuple[TrainingOrder, list[str]]:
    """The order of these draws, and notices. By length: tokens, or characters of rows that a plan did not
    encode. By complexity: InputError for rows that declare none (strict; lenient, they come last)."""
    data, notices = settings.data, list[str]()
    if settings.training.group_by_length:
        lengths = token_lengths(rows, encoded, data.max_seq_len)
        step = settings.training.micro_batch * settings.training.grad_accum * processes
        return TrainingOrder(len(rows), settings.seed, lengths=tuple(lengths), together=step), notices
    if data.order == "shuffled":
        return TrainingOrder(len(rows), settings.seed), notices
    if data.order == "length":
        difficulty = tuple(
            float(encoded[row.row_id].tokens if row.row_id in encoded else row.characters) for row in rows
        )
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
