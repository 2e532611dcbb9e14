"""What truncation, masks and templates cost a mix, in words."""

from lib.data.mixing.ledger import MixLedger, TokenCount
from lib.settings.errors import Problem
from lib.settings.schema import StageSettings


def loss_notices(ledger: MixLedger) -> list[str]:
    """What truncation and masks cost: never silent."""
    count = ledger.encoded or TokenCount()
    about = "about " if ledger.estimated else ""
    losses = (
        (count.truncated, "had their prompt cut from the left to fit SFT_MAX_SEQ_LEN"),
        (count.too_long, "were dropped: the answer alone is longer than SFT_MAX_SEQ_LEN"),
        (count.nothing_supervised, "were dropped: no token of the answer would be learned"),
    )
    notices = [f"[WARNING] {about}{n} of {ledger.upsampled} draws {text}" for n, text in losses if n]
    return [*notices, *_lost(ledger)]


def _lost(ledger: MixLedger) -> list[str]:
    """Data sets and labels that are drawn, but of which nothing is left to train on."""
    which = "all that this plan looked at of its" if ledger.estimated else "all"
    groups: list[tuple[str, int, TokenCount | None]] = [
        (line.id, line.upsampled, line.encoded) for line in ledger.sources
    ]
    if not ledger.estimated:  # of a rare label a sample has too few rows
        groups += [(f"{line.field}: {line.value}", line.drawn, line.encoded) for line in ledger.labels]
    return [
        f"[WARNING] nothing of {name} is trained on: {which} {drawn} draws were dropped"
        for name, drawn, count in groups
        if drawn and count and not count.rows
    ]


def nothing_left(ledger: MixLedger, settings: StageSettings) -> Problem:
    count = ledger.encoded or TokenCount()
    length, masked = settings.data.max_seq_len, "SFT_OUTPUT_MARKERS and SFT_MASK_COT"
    causes = (
        (count.too_long, f"SFT_MAX_SEQ_LEN={length}", "raise SFT_MAX_SEQ_LEN"),
        (count.nothing_supervised, masked, f"check {masked}: nothing follows the marker in the answers"),
        (count.unrenderable, "SFT_CHAT_TEMPLATE", "choose another SFT_CHAT_TEMPLATE"),
        (int(ledger.upsampled == 0), "SFT_UPSAMPLE_RULES", "raise the multipliers: they leave no row"),
    )
    _, key, remedy = max(causes, key=lambda cause: cause[0])
    return Problem(
        where=", ".join(line.id for line in ledger.sources),
        key=key,
        value=(
            f"0 of {ledger.upsampled} draws left: {count.too_long} too long, "
            f"{count.nothing_supervised} without a learned token, {count.unrenderable} refused by template"
        ),
        expected="at least one row to train on",
        remedy=remedy,
    )
