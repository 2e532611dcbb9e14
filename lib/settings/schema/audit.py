"""What is looked for among the rows of a stage before they are mixed."""

from dataclasses import dataclass
from typing import Literal

from lib.settings.keys import key
from lib.settings.readers import choice, number, words_among

CHECKS = (
    "empty",
    "truncated",
    "format",
    "template_token",
    "duplicate",
    "near_duplicate",
    "evaluation",
    "near_evaluation",
)
"""In the order in which they look: a row is found once, by the first that finds it."""


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """Rows that should not be learned from (docs/audit.md). `--plan --audit` shows them in every mode."""

    mode: Literal["off", "report", "remove", "refuse"] = key(
        "SFT_AUDIT",
        "off",
        choice("off", "report", "remove", "refuse"),
        meaning="What is done about rows that the checks find: nothing is looked for, they are counted, left "
        "out before the split, or the stage does not start",
    )
    checks: tuple[str, ...] = key(
        "SFT_AUDIT_CHECKS",
        ",".join(CHECKS),
        words_among(CHECKS),
        meaning="What is looked for",
    )
    near_threshold: float = key(
        "SFT_NEAR_DUPLICATE_THRESHOLD",
        "0.9",
        number(minimum=0.5, maximum=1),
        unit="Jaccard similarity",
        meaning="From where on two rows are near: of their questions' and of their answers' shingles of 5 "
        "characters, the lower one",
    )
