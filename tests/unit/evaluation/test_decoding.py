"""How tokens are chosen and where answers end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.data.chat.chat_format import ChatFormat
from lib.evaluation.answers import Question
from lib.evaluation.decoding import Decoding, Sampling, answer_batch, end_tokens, generating

QUESTIONS = [Question(f"s#{i}", list(range(4, 9 + i)), "r", {}) for i in range(3)]
NEVER = (999,)


@pytest.fixture(scope="module")
def loaded(tiny_model: Callable[..., Path]) -> tuple[Any, Any, ChatFormat]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tiny_model("qwen3_moe")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    chat = ChatFormat.load(folder)
    assert chat is not None
    return model, AutoTokenizer.from_pretrained(folder), chat


def texts(loaded: tuple[Any, Any, ChatFormat], seed: int, **sampling: Any) -> list[str]:
    import torch

    model, tokenizer, _ = loaded
    torch.manual_seed(seed)
    decoding = Decoding(NEVER, 12, Sampling(**sampling))
    with generating(model):
        return [answer.text for answer in answer_batch(model, tokenizer, QUESTIONS, decoding)]


def test_greedy_draws_nothing(loaded: tuple[Any, Any, ChatFormat]) -> None:
    assert texts(loaded, 1) == texts(loaded, 2) == texts(loaded, 3, temperature=1.0, top_k=1)


def test_the_same_seed_draws_the_same_samples(loaded: tuple[Any, Any, ChatFormat]) -> None:
    assert texts(loaded, 1, temperature=1.5) == texts(loaded, 1, temperature=1.5)
    assert texts(loaded, 1, temperature=1.5) != texts(loaded, 2, temperature=1.5)
    assert texts(loaded, 1, temperature=1.5, top_p=1e-6) == texts(loaded, 1)


def test_repetition_can_be_penalised(loaded: tuple[Any, Any, ChatFormat]) -> None:
    plain, penalised = texts(loaded, 1), texts(loaded, 1, repetition_penalty=10.0)
    assert sum(len(set(text)) for text in penalised) > sum(len(set(text)) for text in plain)


def test_what_is_not_said_is_left_to_the_models_own_configuration(
    loaded: tuple[Any, Any, ChatFormat], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded[0].generation_config, "repetition_penalty", 10.0)
    assert texts(loaded, 1) == texts(loaded, 1, repetition_penalty=10.0)
    assert texts(loaded, 1) != texts(loaded, 1, repetition_penalty=1.0)


@pytest.mark.parametrize(("own", "expected"), [(None, (2,)), (2, (2,)), ([0, 2], (2, 0))])
def test_answers_end_where_the_template_or_the_model_ends_them(
    loaded: tuple[Any, Any, ChatFormat], monkeypatch: pytest.MonkeyPatch, own: Any, expected: tuple[int, ...]
) -> None:
    model, _, chat = loaded
    monkeypatch.setattr(model.generation_config, "eos_token_id", own)
    assert end_tokens(chat, model) == expected


def test_a_tokenizer_without_padding_and_a_model_without_an_end(loaded: tuple[Any, Any, ChatFormat]) -> None:
    model, tokenizer, _ = loaded
    ending, unending = Decoding((2,), 12), Decoding((), 12)
    expected = answer_batch(model, tokenizer, QUESTIONS, ending)
    pad, tokenizer.pad_token = tokenizer.pad_token, None
    try:
        assert answer_batch(model, tokenizer, QUESTIONS, ending) == expected
        assert len(answer_batch(model, tokenizer, QUESTIONS, unending)) == 3
    finally:
        tokenizer.pad_token = pad
