"""Which texts belong to chat templates."""

import pytest
from audited_rows import tiny_chat

from lib.audit.template_tokens import token_pattern


@pytest.mark.parametrize(
    "text", ["<|im_start|>user", "a<|im_end|>", "<start_of_turn>model", "<end_of_turn>", "<|assistant|>"]
)
def test_tokens_of_every_bundled_template_are_known_without_a_tokenizer(text: str) -> None:
    assert token_pattern(None).search(text)


def test_special_tokens_of_the_tokenizer_are_known() -> None:
    tokens = tiny_chat().control_tokens
    assert tokens
    for token in tokens:
        assert token_pattern(tiny_chat()).search(f"x{token}y")


@pytest.mark.parametrize(
    "text", ["<think>", "</think>", "<user>", "a <b> c", "x | y", "<s>", "**bold**", "## Title", "日本語"]
)
def test_other_text_is_left_alone(text: str) -> None:
    assert not token_pattern(tiny_chat()).search(text)


def test_headers_count_for_the_template_that_writes_them() -> None:
    text = "Do this.\n### Response:\nDone."
    assert token_pattern(tiny_chat("alpaca")).search(text)
    assert not token_pattern(tiny_chat("chatml")).search(text)
    assert not token_pattern(tiny_chat("alpaca")).search("see ### Response: there")
