"""A tiny random model as an assistant."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lib.data.chat.model_chat import chat_of
from lib.evaluation.decoding import Decoding, Sampling
from lib.inference.assistant import Assistant


@pytest.fixture
def assistant(tiny_model: Callable[..., Path]) -> Iterator[Callable[..., Assistant]]:
    """assistant(max_new_tokens=8, end=2, longest_prompt=400, temperature=0.0)"""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tiny_model("qwen3")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = chat_of(tokenizer, "")

    def make(
        max_new_tokens: int = 8, end: int = 999, longest_prompt: int = 400, temperature: float = 0.0
    ) -> Assistant:
        decoding = Decoding((end,), max_new_tokens, Sampling(temperature))
        return Assistant(model, tokenizer, chat, decoding, longest_prompt)

    with torch.no_grad():
        yield make
