"""Generation and loss on a tiny random model, against plain loops."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lib.evaluation.answers import Question
from lib.evaluation.generation import GenerationLimits, choose, generate_answers, row_losses, token_loss
from lib.training.sizing.world import World

NEVER = (999,)  # beyond the vocabulary: no answer ends before the limit


@pytest.fixture(scope="module", params=["qwen3_moe", "qwen3"])
def loaded(request: pytest.FixtureRequest, tiny_model: Callable[..., Path]) -> tuple[Any, Any]:
    """(model, tokenizer) in evaluation mode."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tiny_model(request.param)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def questions(*lengths: int) -> list[Question]:
    prompts = random.Random(5)
    return [
        Question(f"s#{i}", [prompts.randrange(4, 50) for _ in range(length)], "r", {})
        for i, length in enumerate(lengths)
    ]


def plain_greedy(model: Any, prompt: list[int], steps: int) -> list[int]:
    import torch

    ids = list(prompt)
    with torch.no_grad():
        for _ in range(steps):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_answers_equal_a_plain_greedy_loop_whatever_the_batch(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    asked = questions(3, 17, 9, 4, 12)
    batches = [
        generate_answers(model, tokenizer, asked, GenerationLimits(NEVER, size, max_new_tokens=8))
        for size in (1, 3, 5)
    ]
    assert batches[0].answers == batches[1].answers == batches[2].answers
    assert [answer.question for answer in batches[0].answers] == asked
    for answer in batches[0].answers:
        expected = tokenizer.decode(
            plain_greedy(model, answer.question.prompt_ids, 8), skip_special_tokens=True
        )
        assert answer.text == expected
        assert (answer.tokens, answer.stopped) == (8, False)
    assert len({answer.text for answer in batches[0].answers}) > 1


def test_an_answer_ends_at_the_end_token_and_padding_is_no_part_of_it(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    asked = questions(5, 11, 7)
    free = [plain_greedy(model, question.prompt_ids, 8) for question in asked]
    end = free[0][3]
    made = generate_answers(model, tokenizer, asked, GenerationLimits((end,), 3, max_new_tokens=8))
    for answer, tokens in zip(made.answers, free, strict=True):
        kept = tokens[: tokens.index(end)] if end in tokens else tokens
        assert answer.text == tokenizer.decode(kept, skip_special_tokens=True)
        assert (answer.tokens, answer.stopped) == (len(kept), end in tokens)
    assert made.answers[0].stopped


@pytest.mark.parametrize("training", [True, False])
def test_mode_cache_setting_and_random_state_are_put_back(loaded: tuple[Any, Any], training: bool) -> None:
    import torch

    model, tokenizer = loaded
    model.train(training)
    model.config.use_cache = False
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    generate_answers(model, tokenizer, questions(4), GenerationLimits(NEVER, 1, max_new_tokens=2))
    row_losses(model, [([4, 5, 6], [-100, 5, 6])])
    assert torch.equal(torch.rand(3), expected)
    assert model.training is training
    assert model.config.use_cache is False
    assert torch.is_grad_enabled()
    model.eval()


def test_they_are_put_back_after_a_failure_too(loaded: tuple[Any, Any]) -> None:
    model, _ = loaded
    model.train()
    with pytest.raises(IndexError):
        row_losses(model, [([4, 10_000], [4, 5])])
    assert model.training
    model.eval()


def test_token_loss_is_the_mean_over_supervised_tokens(loaded: tuple[Any, Any]) -> None:
    import torch

    model, _ = loaded
    rows = [
        ([4, 5, 6, 7, 8], [-100, -100, 6, 7, 8]),
        ([9, 10, 11], [9, -100, 11]),  # the first token has nothing before it: no loss
        ([12, 13], [-100, -100]),
    ]
    losses = []
    with torch.no_grad():
        for ids, targets in rows:
            log_probabilities = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            losses += [-log_probabilities[i - 1, t] for i, t in enumerate(targets) if t != -100 and i > 0]
    assert len(losses) == 4
    assert token_loss(row_losses(model, rows)) == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


def test_there_is_no_token_loss_of_nothing(loaded: tuple[Any, Any]) -> None:
    model, _ = loaded
    assert token_loss(row_losses(model, [])) is None
    assert token_loss(row_losses(model, [([4, 5], [-100, -100])])) is None


def test_choose_takes_the_same_rows_for_the_same_seed() -> None:
    rows = list(range(100))
    first = choose(rows, samples=10, seed=1)
    assert first == choose(rows, samples=10, seed=1)
    assert first != choose(rows, samples=10, seed=2)
    assert len(set(first)) == 10
    assert set(first) <= set(rows)
    assert choose(rows, samples=100, seed=1) == rows
    assert choose(rows[:3], samples=10, seed=1) == rows[:3]
    assert choose(rows, samples=0, seed=1) == []


def test_budgets_end_an_evaluation_between_batches(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    asked = questions(*range(3, 15))
    limits = GenerationLimits(NEVER, batch_size=2, max_new_tokens=4)
    everything = generate_answers(model, tokenizer, asked, limits)
    assert len(everything.answers) == 12
    some = generate_answers(model, tokenizer, asked, replace(limits, token_budget=17))
    assert some.tokens == 24  # 2 answers of 4 tokens a batch: the third batch crosses the budget
    assert all(answer in everything.answers for answer in some.answers)
    lengths = [len(answer.question.prompt_ids) for answer in some.answers]
    assert lengths == sorted(lengths)  # the order of the questions
    assert lengths != list(range(9, 15))  # not the longest alone
    assert some.answers == generate_answers(model, tokenizer, asked, replace(limits, token_budget=17)).answers
    none_left = generate_answers(model, tokenizer, asked, replace(limits, time_budget=1e-9))
    assert len(none_left.answers) in {0, 2}


class Rank:
    """One of several processes, on which the others have been already."""

    def __init__(self, rank: int, others: list[Any]) -> None:
        self.rank, self.world, self.others = rank, World(3, 0), others

    def gather(self, items: list[Any]) -> list[Any]:
        self.others.extend(items)
        return list(self.others)


def test_shares_of_three_processes_make_up_the_whole(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    asked = questions(3, 17, 9, 4)  # four questions: the shares are uneven
    limits = GenerationLimits(NEVER, batch_size=2, max_new_tokens=4)
    alone = generate_answers(model, tokenizer, asked, limits)
    others: list[Any] = []
    shares = [generate_answers(model, tokenizer, asked, limits, Rank(rank, others)) for rank in range(3)]
    assert shares[-1].answers == alone.answers
    assert [len(share.answers) for share in shares] == [2, 3, 4]
    rows = [
        ([4, 5, 6, 7], [-100, 5, 6, 7]),
        ([9, 10, 11], [9, 10, 11]),
        ([4, 8], [-100, 8]),
        ([5, 6], [5, 6]),
    ]
    others.clear()
    losses = [row_losses(model, rows, Rank(rank, others)) for rank in range(3)]
    assert losses[-1] == row_losses(model, rows)
