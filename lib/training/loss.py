"""The loss of the labelled tokens of a batch; hidden states of all others never meet the head."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from lib.data.chat.encoded import IGNORED
from lib.model.head_loss import head_losses
from lib.model.output_head import OutputHead, output_head
from lib.training.random_state import untouched_random_state

PROBE_TOKENS = 16
# Relative difference from the model's own loss that is rounding: fp32, and narrower types.
FULL_TOLERANCE, HALF_TOLERANCE = 1e-5, 1e-2


class TokenLosses(NamedTuple):
    """One entry per labelled token, in the order of the batch."""

    losses: torch.Tensor
    """Cross entropy in nats, fp32."""
    correct: torch.Tensor
    """Whether no other token was more likely."""
    rows: torch.Tensor
    """The row of the batch that the token stands in."""

    def sums_by_row(self, rows: int) -> torch.Tensor:
        """(rows, 3) in fp64: summed loss, labelled tokens, correct ones."""
        losses = self.losses.detach().double()
        parts = torch.stack([losses, torch.ones_like(losses), self.correct.double()], dim=1)
        return parts.new_zeros(rows, 3).index_add_(0, self.rows, parts)


class LabelledLoss:
    """Computes the losses of one causal language model, with an adapter on it or without.

    Body and head of the model are called apart. Whether that gives the loss of its own forward is tried once,
    on a few tokens; where it does not, the own forward is used and `obstacle` says why.
    """

    def __init__(self, model: PreTrainedModel | PeftModel) -> None:
        self._model: PreTrainedModel = model.get_base_model() if isinstance(model, PeftModel) else model
        self._own_forward: Callable[..., Any] = self._model.forward
        self._head, self.obstacle = self._examined()

    @property
    def device(self) -> torch.device:
        return self._model.device

    @property
    def notices(self) -> tuple[str, ...]:
        if not self.obstacle:
            return ()
        family = type(self._model).__name__
        return (f"[WARNING] the loss of {family} is computed from all its logits at once: {self.obstacle}",)

    def __call__(self, *inputs: Any, labels: torch.Tensor, **options: Any) -> TokenLosses:
        """Losses of the tokens whose label is not -100; the first token of a row has nothing before it.

        `labels` is (rows, length), everything else what the model's forward takes.
        """
        return self._losses(self._head, *inputs, labels=labels, **options)

    def _losses(
        self, head: OutputHead | None, *inputs: Any, labels: torch.Tensor, **options: Any
    ) -> TokenLosses:
        rows, positions = (labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
        targets = labels[rows, positions + 1]
        if head is None:
            logits = self._own_forward(*inputs, use_cache=False, **options).logits
            return TokenLosses(*_full_losses(logits[rows, positions].float(), targets), rows)
        hidden = self._model.base_model(*inputs, use_cache=False, **options).last_hidden_state
        flat = hidden.reshape(-1, hidden.shape[-1])
        chosen = flat.index_select(0, rows * labels.shape[1] + positions)
        return TokenLosses(*head_losses(chosen, head, targets), rows)

    def through_forward(self) -> None:
        """Let the model's forward return TokenLosses when it is called with `token_losses=True`: what wraps
        the model for several processes counts on its forward being called."""

        @functools.wraps(self._own_forward)  # generation checks its arguments against the signature
        def forward(*inputs: Any, token_losses: bool = False, **options: Any) -> Any:
            return (self if token_losses else self._own_forward)(*inputs, **options)

        self._model.forward = forward

    def _examined(self) -> tuple[OutputHead | None, str]:
        """The head, if using it alone is right, else None and the reason."""
        head = output_head(self._model)
        if head is None:
            return None, "it has no separate output layer"
        ids = torch.arange(PROBE_TOKENS, device=self.device)[None] * (head.vocabulary // PROBE_TOKENS)
        with _at_rest(self._model):
            ours, own = (
                self._losses(way, input_ids=ids, labels=ids).losses.double().mean().item()
                for way in (head, None)
            )
        full = self._model.dtype in (torch.float32, torch.float64)
        if abs(ours - own) > (FULL_TOLERANCE if full else HALF_TOLERANCE) * max(abs(own), 1.0):
            return None, f"from the hidden states it would be {ours:.6g} where the model says {own:.6g}"
        return head, ""


def _full_losses(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    chosen = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    return -chosen, logits.gather(1, targets[:, None])[:, 0] == logits.amax(-1)


@contextmanager
def _at_rest(model: PreTrainedModel) -> Iterator[None]:
    """No gradients, no dropout; mode and random state are left as they were."""
    training = model.training
    model.eval()
    try:
        with untouched_random_state(), torch.no_grad():
            yield
    finally:
        model.train(training)
