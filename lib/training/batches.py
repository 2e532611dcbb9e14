"""How rows become batches: several in one sequence, one after another without padding, or padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from lib.settings import InputError
from lib.training.row_separation import mixing_of_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lib.data.chat.encoded import EncodedRow


@dataclass(frozen=True)
class BatchForm:
    """Whether the rows of a batch stand one after another in one sequence, or padded under each other."""

    padding_free: bool
    reason: str

    def line(self) -> str:
        return f"  batches {'without' if self.padding_free else 'with'} padding: {self.reason}"

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Collator:
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        return Collator(
            DataCollatorForLanguageModeling(pad_token_id=pad, padding_free=self.padding_free),
            DataCollatorForLanguageModeling(pad_token_id=pad),
        )


@dataclass(frozen=True)
class Collator:
    """Examples of a data set into a batch.

    Without padding: `input_ids`, `labels`, `position_ids` of shape (1, tokens of the batch), positions from 0
    and the first label -100 in every row, and the rows' borders as flash attention takes them. Evaluation is
    padded in any case: what processes gather of it is cut to the rows there are, one entry for each.
    """

    training: DataCollatorForLanguageModeling
    evaluation: DataCollatorForLanguageModeling

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Only what is trained on has `seq_lengths`."""
        batch: dict[str, Any] = (self.training if "seq_lengths" in examples[0] else self.evaluation)(examples)
        return batch


def choose_batch_form(model: PreTrainedModel, rows: Sequence[EncodedRow], *, packing: bool) -> BatchForm:
    """Without padding wherever the model keeps the rows of a sequence apart, which it is asked, on two rows.

    Changes the model's attention from SDPA to SDPA row by row. Raises InputError when `packing` is asked for
    and rows would see each other.
    """
    from lib.model.packed_attention import use_attention_by_row

    attention = model.config._attn_implementation
    if attention == "eager" and not packing:
        return BatchForm(False, "eager attention would compare every token with all others of the batch")
    if attention == "sdpa":
        use_attention_by_row(model)
    if not (obstacle := mixing_of_rows(model, rows)):
        return BatchForm(True, f"attention {model.config._attn_implementation} keeps rows apart")
    model.set_attn_implementation(attention)
    if packing:
        raise InputError.of(
            where="base model",
            key="SFT_PACKING",
            value="1",
            expected=f"a model that keeps rows of one sequence apart; of this one {obstacle}",
            remedy="set SFT_PACKING=0; SFT_GROUP_BY_LENGTH=1 saves most of the padding there",
        )
    return BatchForm(False, obstacle)
