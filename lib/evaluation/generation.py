"""Answers of a model on held-out rows: greedy, in left-padded batches, shared out over the processes."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from lib.evaluation.answers import Answer, Question
from lib.evaluation.decoding import Decoding, answer_batch, generating, quickest_threads

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lib.training.loss import LabelledLoss
    from lib.training.processes.process_group import Processes

T = TypeVar("T")


@dataclass(frozen=True)
class GenerationLimits:
    """How answers are generated and where it stops. A budget of 0 is none."""

    end_token_ids: tuple[int, ...]
    batch_size: int
    max_new_tokens: int
    token_budget: int = 0
    """New tokens of one evaluation, over all processes."""
    time_budget: float = 0.0
    """Seconds."""

    @property
    def decoding(self) -> Decoding:
        return Decoding(self.end_token_ids, self.max_new_tokens)


@dataclass(frozen=True)
class Answers:
    """In the order of the questions; those that the budget left unanswered are missing."""

    answers: tuple[Answer, ...]
    seconds: float

    @property
    def tokens(self) -> int:
        return sum(answer.tokens for answer in self.answers)


def choose(rows: Sequence[T], *, samples: int, seed: int) -> list[T]:
    """At most `samples` rows, the same ones for the same seed."""
    if len(rows) <= samples:
        return list(rows)
    return random.Random(seed).sample(list(rows), samples)


def generate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    limits: GenerationLimits,
    processes: Processes | None = None,
) -> Answers:
    """Greedy answers to `questions`, the same ones on every process.

    Every process answers its share alone (no step waits for another, so shares may be uneven) and all
    shares are gathered at the end. The model's mode and the random state are left as they were.
    """
    started = time.monotonic()
    rank, world = (processes.rank, processes.world.processes) if processes else (0, 1)
    order = sorted(range(len(questions)), key=lambda i: len(questions[i].prompt_ids), reverse=True)
    with evaluating(model), quickest_threads(model):
        mine = _answer_share(model, tokenizer, questions, order[rank::world], limits, world)
    everyone = processes.gather(mine) if processes else mine
    return Answers(tuple(answer for _, answer in sorted(everyone, key=_position)), time.monotonic() - started)


def _position(entry: tuple[int, Answer]) -> int:
    return entry[0]


def _answer_share(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    share: Sequence[int],
    limits: GenerationLimits,
    world: int,
) -> list[tuple[int, Answer]]:
    """(position, answer) of the questions at `share`, sorted by length so that a batch pads little.

    Under a budget the batches are taken in shuffled order: what is answered must not be the longest alone.
    """
    batches = list(in_batches(share, limits.batch_size))
    if limits.token_budget or limits.time_budget:
        random.Random(len(questions)).shuffle(batches)
    answered: list[tuple[int, Answer]] = []
    started, tokens = time.monotonic(), 0
    for batch in batches:
        over_tokens = limits.token_budget and tokens >= limits.token_budget / world
        over_time = limits.time_budget and time.monotonic() - started >= limits.time_budget
        if over_tokens or over_time:
            break
        answers = answer_batch(model, tokenizer, [questions[i] for i in batch], limits.decoding)
        tokens += sum(answer.tokens for answer in answers)
        answered += zip(batch, answers, strict=True)
    return answered


def in_batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`size` items at a time, the rest last."""
    return (items[first : first + size] for first in range(0, len(items), size))


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """The model as it answers fastest: evaluation mode, no gradients, cache on, adapter folded into the
    weights. All of it, the random state included, is put back bit for bit."""
    from lib.model.merged_weights import temporarily_merged
    from lib.training.random_state import untouched_random_state

    with untouched_random_state(), temporarily_merged(model), generating(model):
        yield


def row_losses(
    model: PreTrainedModel,
    rows: Sequence[tuple[list[int], list[int]]],
    processes: Processes | None = None,
) -> list[tuple[float, int]]:
    """(summed loss in nats, supervised tokens) of each of `rows` of (input_ids, targets; -100 carries no
    loss), in their order.

    One row at a time: exact, whatever the batch size.
    """
    from lib.training.loss import LabelledLoss

    rank, world = (processes.rank, processes.world.processes) if processes else (0, 1)
    with evaluating(model):
        loss = LabelledLoss(model)
        losses = [(i, *_summed_loss(loss, *rows[i])) for i in range(rank, len(rows), world)]
    return [(loss, tokens) for _, loss, tokens in sorted(processes.gather(losses) if processes else losses)]


def token_loss(losses: Sequence[tuple[float, int]]) -> float | None:
    """Mean loss per supervised token; None where there is none. Summed in the order of the rows, so that the
    number of processes does not show."""
    count = sum(tokens for _, tokens in losses)
    return sum(loss for loss, _ in losses) / count if count else None


def _summed_loss(loss: LabelledLoss, input_ids: list[int], targets: list[int]) -> tuple[float, int]:
    """(summed loss, supervised tokens) of one row."""
    import torch

    ids, labels = torch.tensor([[input_ids], [targets]], device=loss.device)
    losses = loss(input_ids=ids, labels=labels).losses
    return losses.sum().item(), losses.numel()
