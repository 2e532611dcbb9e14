"""What a chat remembers, and what it forgets when the context is full."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lib.data.chat.chat_format import ChatFormat
from lib.data.reading.rows import Message
from lib.inference.conversation import Conversation


@pytest.fixture
def chat(tiny_model: Callable[..., Path]) -> ChatFormat:
    made = ChatFormat.load(tiny_model("qwen3"))  # one token per character
    assert made is not None
    return made


def spoken(*turns: tuple[str, str]) -> list[Message]:
    return [Message(role, text) for role, text in turns]


def test_a_question_follows_what_was_said(chat: ChatFormat) -> None:
    conversation = Conversation("be brief")
    conversation.keep("a", "b")
    asked = conversation.ask("c", chat, 1000)
    turns = spoken(("system", "be brief"), ("user", "a"), ("assistant", "b"), ("user", "c"))
    assert asked == (chat.prompt_ids(turns), 0, 0)
    assert conversation.exchanges == [("a", "b")], "a question is kept with its answer"


def test_the_oldest_exchanges_go_first_and_for_good(chat: ChatFormat) -> None:
    conversation = Conversation("be brief")
    for number in range(5):
        conversation.keep(f"question {number}", f"answer {number}")
    left = [("system", "be brief"), ("user", "question 4"), ("assistant", "answer 4"), ("user", "now")]
    fitting = chat.prompt_ids(spoken(*left))
    assert conversation.ask("now", chat, len(fitting)) == (fitting, 4, 0)
    assert conversation.exchanges == [("question 4", "answer 4")]
    assert conversation.ask("now", chat, 1000) == (fitting, 0, 0)


def test_a_question_that_is_too_long_by_itself_loses_its_beginning(chat: ChatFormat) -> None:
    conversation = Conversation()
    conversation.keep("a", "b")
    whole = chat.prompt_ids(spoken(("user", "x" * 100)))
    assert conversation.ask("x" * 100, chat, 40) == (whole[-40:], 1, len(whole) - 40)


def test_a_reset_keeps_the_system_prompt(chat: ChatFormat) -> None:
    conversation = Conversation("be brief")
    conversation.keep("a", "b")
    conversation.reset()
    fresh = chat.prompt_ids(spoken(("system", "be brief"), ("user", "c")))
    assert conversation.ask("c", chat, 1000).prompt_ids == fresh
