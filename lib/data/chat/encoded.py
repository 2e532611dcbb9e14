"""A row as token ids with the mask of what is learned."""

from dataclasses import dataclass
from typing import Literal

from lib.data.reading.labels import Label

Status = Literal["ok", "truncated", "too_long", "nothing_supervised", "unrenderable"]
DROPPED: tuple[Status, ...] = ("too_long", "nothing_supervised", "unrenderable")
IGNORED = -100
"""The target that carries no loss, as torch's cross entropy and transformers understand it."""


@dataclass(frozen=True, slots=True)
class EncodedRow:
    row_id: str
    """`source#index`."""
    source: str
    labels: tuple[Label, ...]
    status: Status
    """ok and truncated rows are trained on; the others carry the ids that they would have had."""
    input_ids: list[int]
    supervised: list[bool]
    """One per token: whether it is learned (carries loss)."""
    answer_tokens: int
    """Tokens of the last answer, chain of thought and end-of-turn token included."""
    cut_tokens: int = 0
    """Tokens cut from the prompt's left."""

    @property
    def usable(self) -> bool:
        return self.status not in DROPPED

    @property
    def tokens(self) -> int:
        """After truncation."""
        return len(self.input_ids)

    @property
    def supervised_tokens(self) -> int:
        return sum(self.supervised)

    def targets(self) -> list[int]:
        """The `labels` of a causal language model: the token id where it is learned, else -100."""
        return [
            token if learned else IGNORED
            for token, learned in zip(self.input_ids, self.supervised, strict=True)
        ]
