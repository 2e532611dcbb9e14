"""Whether a model keeps the rows of one sequence apart: found by asking it, not by knowing its name.

State-space layers, positions that are not taken from position_ids, or attention that makes its own mask would
let a row see the one before it, and nothing but the result would show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lib.data.chat.encoded import EncodedRow

PROBE_TOKENS = 32
# Of the change that the row before causes where nothing keeps it away.
ROUNDING = {torch.float32: 0.01}
HALF_ROUNDING = 0.1


def mixing_of_rows(model: PreTrainedModel, rows: Sequence[EncodedRow]) -> str:
    """Why rows in one sequence are not computed as if each were alone; empty when they are.

    The second of two rows is computed alone, behind the first with the borders told, and behind it without:
    told, it must come out as alone, measured by how far off it is untold.
    """
    first, second = (row.input_ids[:PROBE_TOKENS] for row in (rows[0], rows[-1]))
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(
        [{"input_ids": first}, {"input_ids": second}]
    )
    batch.pop("labels")
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            alone = _logits(model, len(second), input_ids=torch.tensor([second]))
            apart = _logits(model, len(second), **batch)
            mixed = _logits(model, len(second), input_ids=torch.tensor([first + second]))
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        return f"the forward does not take such a batch ({' '.join(str(error).split())[:200]})"
    finally:
        model.train(training)
    allowed = ROUNDING.get(model.dtype, HALF_ROUNDING) * float((mixed - alone).norm())
    off = float((apart - alone).norm())
    if off <= allowed:
        return ""
    return f"a row changes with the one before it (by {off:.2g}, {allowed:.2g} allowed)"


def _logits(model: PreTrainedModel, last: int, **batch: torch.Tensor) -> torch.Tensor:
    """(last, vocabulary) in fp32. Without a cache: with one, transformers does not look for rows."""
    placed = {key: x.to(model.device) if torch.is_tensor(x) else x for key, x in batch.items()}
    logits: torch.Tensor = model(**placed, use_cache=False).logits
    return logits[0, -last:].float()
