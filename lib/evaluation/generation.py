"""Answers of the model under training on held-out rows: greedy, in batches, left-padded."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from lib.evaluation.answers import Answer, Question

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

T = TypeVar("T")


@dataclass(frozen=True)
class Answers:
    answers: tuple[Answer, ...]
    seconds: float


def choose(rows: Sequence[T], *, samples: int, seed: int) -> list[T]:
    """At most `samples` rows, the same ones for the same seed."""
    if len(rows) <= samples:
        return list(rows)
    return random.Random(seed).sample(list(rows), samples)


def generate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    *,
    end_token_ids: Sequence[int],
    batch_size: int,
    max_new_tokens: int,
) -> Answers:
    """Greedy answers in the order of `questions`. The model's mode and the random state are restored.

    Sorted by length so that a batch pads little; padding stands on the left, because an answer must
    follow its prompt directly.
    """
    started = time.monotonic()
    order = sorted(range(len(questions)), key=lambda i: len(questions[i].prompt_ids), reverse=True)
    answers: dict[int, Answer] = {}
    with evaluating(model):
        for first in range(0, len(order), batch_size):
            batch = order[first : first + batch_size]
            texts = _generate_batch(
                model, tokenizer, [questions[i] for i in batch], list(end_token_ids), max_new_tokens
            )
            answers.update(zip(batch, texts, strict=True))
    return Answers(tuple(answers[i] for i in range(len(questions))), time.monotonic() - started)


def _generate_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    end_token_ids: list[int],
    max_new_tokens: int,
) -> list[Answer]:
    import torch
    from transformers import GenerationConfig

    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end_token_ids[0]
    width = max(len(question.prompt_ids) for question in questions)
    rows = [[pad] * (width - len(q.prompt_ids)) + q.prompt_ids for q in questions]
    mask = [[0] * (width - len(q.prompt_ids)) + [1] * len(q.prompt_ids) for q in questions]
    output = model.generate(
        input_ids=torch.tensor(rows, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        generation_config=GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=end_token_ids,
            pad_token_id=pad,
            use_cache=True,
        ),
    )
    return [
        _answer(question, generated, tokenizer, end_token_ids)
        for question, generated in zip(questions, output[:, width:].tolist(), strict=True)
    ]


def _answer(
    question: Question, generated: list[int], tokenizer: PreTrainedTokenizerBase, end_token_ids: Sequence[int]
) -> Answer:
    """Cut at the first end token; what follows it is padding."""
    end = next((i for i, token in enumerate(generated) if token in end_token_ids), None)
    kept = generated if end is None else generated[:end]
    text = tokenizer.decode(kept, skip_special_tokens=True)
    return Answer(question, text, tokens=len(kept), stopped=end is not None)


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode without gradients; mode, cache setting and random state are put back."""
    import torch

    training, use_cache = model.training, model.config.use_cache
    random_state = torch.get_rng_state()
    model.eval()
    model.config.use_cache = True
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
        model.config.use_cache = use_cache
        torch.set_rng_state(random_state)


def token_loss(model: PreTrainedModel, rows: Sequence[tuple[list[int], list[int]]]) -> float:
    """Mean loss per supervised token over `rows` of (input_ids, targets; -100 carries no loss), in nats.

    One row at a time: exact, whatever the batch size, and never more than one row of logits.
    """
    import torch
    from torch.nn.functional import cross_entropy

    total, count = 0.0, 0
    with evaluating(model):
        for input_ids, targets in rows:
            ids = torch.tensor([input_ids], device=model.device)
            wanted = torch.tensor(targets[1:], device=model.device)
            learned = wanted != -100
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1][learned].float()
            total += cross_entropy(logits, wanted[learned], reduction="sum").item()
            count += int(learned.sum())
    return total / count if count else float("nan")
