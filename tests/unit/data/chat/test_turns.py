"""Answers are found in the one text that was rendered, where they would be found by rendering again."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.chat.chat_format import ChatFormat
from lib.data.chat.chat_template import bundled_templates
from lib.data.chat.turns import find_turns
from lib.data.reading.rows import Message

BASE = Path(__file__).parents[4] / "assets/tiny-moe"
CHATS = {name: ChatFormat.load(BASE, name) for name in ("", *bundled_templates())}
HEADERS = ("<|im_start|>assistant\n", "### Assistant:\n", "<|assistant|>\n", "<start_of_turn>model\n")
CONTENT = st.one_of(
    st.text(max_size=12),
    st.sampled_from([*HEADERS, "<|im_end|>\n", " answer ", "答え。\n", "", "<think>\nno\n</think>\n\nyes"]),
).map(lambda text: text.encode(errors="replace").decode())
EXCHANGES = st.lists(st.tuples(CONTENT, CONTENT), min_size=1, max_size=3)


@pytest.mark.parametrize("name", CHATS)
@settings(max_examples=40, deadline=None)
@given(exchanges=EXCHANGES, system=st.one_of(st.none(), CONTENT), last_only=st.booleans())
def test_rendering_again_finds_the_same(
    name: str, exchanges: list[tuple[str, str]], system: str | None, last_only: bool
) -> None:
    chat = CHATS[name]
    assert chat is not None
    messages = [Message("system", system)] if system is not None else []
    for question, answer in exchanges:
        messages += [Message("user", question), Message("assistant", answer)]
    text = chat.render(messages)
    found = find_turns(messages, text, chat.render, chat._facts, last_only=last_only)
    again = replace(chat._facts, header="", tail="")
    assert found == find_turns(messages, text, chat.render, again, last_only=last_only)


@pytest.mark.parametrize("name", ["", "chatml", "zephyr"])
def test_nothing_is_rendered_again_for_an_ordinary_row(name: str) -> None:
    chat = CHATS[name]
    assert chat is not None
    messages = [
        Message("user", "q"),
        Message("assistant", "a"),
        Message("user", "q"),
        Message("assistant", "b"),
    ]
    text = chat.render(messages)

    def never(*_: object) -> str:
        raise AssertionError("rendered again")

    first, second = find_turns(messages, text, never, chat._facts, last_only=False)
    assert [text[turn.start : turn.closing] for turn in (first, second)] == ["a", "b"]
