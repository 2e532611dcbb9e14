from collections.abc import Callable
from dataclasses import replace

from lib.data.chat.chat_format import ChatFormat
from lib.data.chat.masks import EncodingRules
from lib.data.chat.preview import masked_rows, preview_rows, token_views
from lib.data.reading.rows import Example

Rules = Callable[..., EncodingRules]
Conversation = Callable[..., Example]


def test_learned_tokens_stand_in_brackets(chat: ChatFormat, conversation: Conversation, rules: Rules) -> None:
    example = conversation("u: question", "a: Approach:\nOutput: hello")
    text = preview_rows(chat, [example], rules(), color=False)
    assert "row 1: source#0, " in text
    assert "⟦ hello│<|im_end|>⟧" in text.replace("│hell", "hell").replace("hell│o", "hello").replace(
        "h│ello", "hello"
    )
    assert text.count("⟦") == 2  # the legend's and the row's
    assert "<|im_start|>│user│↵\n" in text


def test_colours_mark_the_same_runs(chat: ChatFormat, conversation: Conversation, rules: Rules) -> None:
    text = preview_rows(chat, [conversation("u: question", "a: answer")], rules(), color=True)
    green = text.split("\x1b[32m")[2].split("\x1b[0m")[0]
    assert green.replace("│", "") == "answer<|im_end|>"


def test_tokens_that_share_a_character_are_shown_together(
    chat: ChatFormat, conversation: Conversation, rules: Rules
) -> None:
    views = token_views(chat, conversation("u: q", "a: 松友"), rules())
    texts = [view.text for view in views]
    assert "松" in texts
    assert "友" in texts
    assert all("\ufffd" not in text for text in texts)
    assert [view.tokens for view in views if view.text == "松"] == [3]
    assert "".join(text for text, view in zip(texts, views, strict=True) if view.learned) == "松友<|im_end|>"


def test_no_row_can_steer_the_terminal(chat: ChatFormat, conversation: Conversation, rules: Rules) -> None:
    text = preview_rows(chat, [conversation("u: \x1b[2J\r\t\x07\u202e", "a: x")], rules(), color=False)
    assert "\x1b" not in text
    assert "␛" in text
    assert "<U+0007>" in text
    assert "<U+202E>" in text


def test_what_truncation_took_is_marked(chat: ChatFormat, conversation: Conversation, rules: Rules) -> None:
    example = conversation("u: " + "hello world " * 20, "a: x")
    views = token_views(chat, example, rules(max_seq_len=12))
    kept = [view for view in views if not view.cut]
    assert sum(view.tokens for view in kept) == 12
    assert views[0].cut
    assert views[-1].cut  # the line end behind the last end-of-turn token
    assert "".join(view.text for view in kept if view.learned) == "x<|im_end|>"


def test_masked_rows_are_distinct_and_the_sources_take_turns(
    chat: ChatFormat, conversation: Conversation, rules: Rules
) -> None:
    first, second = (conversation("u: q", f"a: {n}") for n in "12")
    examples = [
        replace(first, source="a", index=1),
        replace(first, source="a", index=1),
        replace(second, source="a", index=2),
        replace(first, source="b", index=1),
    ]
    shown = masked_rows(chat, examples, rules(), limit=2)
    assert [row.row_id for row in shown] == ["a#1", "b#1"]
    assert "".join(view.text for view in shown[0].views if view.learned) == "1<|im_end|>"
    assert shown[0].line() == f"a#1, {shown[0].tokens} tokens, {shown[0].learned} learned, ok"
