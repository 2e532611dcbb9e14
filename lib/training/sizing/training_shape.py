"""What a stage trains, in what pieces, on what: memory and time are counted from it. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from lib.model.architecture import Architecture
from lib.settings.schema.model import Quantization


@dataclass(frozen=True, kw_only=True)
class TrainingShape:
    """What is trained, in what pieces, on what. Rows and length are those of one pass of one process."""

    architecture: Architecture
    rank: int
    targets: Collection[str]
    dropout: bool
    rows: int
    length: int
    checkpointing: bool
    weight_bytes: int
    on_gpu: bool
    processes: int
    sharded: bool
    """ZeRO-2 rather than plain data parallel."""
    attention: str
    """flash_attention_2, sdpa or eager."""
    optimizer: str = "adamw_torch"
    frozen_adapters: int = 0
    """Earlier stages kept beside the base as frozen factors of about the same rank (SFT_MERGE_MODE=stack)."""
    quantization: Quantization = "none"
    answer_rows: int = 0
    """Answers that are generated at a time while training; 0: none are."""
    answer_tokens: int = 0
    """Of each at most."""

    @property
    def tokens(self) -> int:
        return self.rows * self.length

    @property
    def prompt_tokens(self) -> int:
        """Of a row of `length` what an answer as long as it may be leaves; half of the row at least."""
        return max(self.length - self.answer_tokens, self.length // 2)

    @property
    def trainable(self) -> int:
        return self.architecture.lora_parameters(self.rank, self.targets)
