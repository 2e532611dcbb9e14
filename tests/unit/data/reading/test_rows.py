import json
from typing import Any

import pytest

from lib.data.reading.labels import Label
from lib.data.reading.rows import Message, RowError, content_key, to_example
from lib.data.reading.sources import Source
from lib.data.reading.usable_rows import read_examples
from lib.settings.errors import InputError

USER, ANSWER = Message("user", "q"), Message("assistant", "a")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
            [USER, ANSWER],
        ),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "agent", "content": "a"}]}, [USER, ANSWER]),
        ({"messages": [{"role": "human", "content": "q"}, {"role": "gpt", "content": "a"}]}, [USER, ANSWER]),
        (
            {"messages": '[{"role": "user", "content": "q"}, {"role": "agent", "content": "a"}]'},
            [USER, ANSWER],
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "q"}]},
                    {"role": "tool", "content": "42"},
                    {"role": "assistant", "content": "a", "tool_calls": None},
                ]
            },
            [USER, Message("tool", "42"), ANSWER],
        ),
        (
            {
                "conversations": [
                    {"from": "system", "value": "s"},
                    {"from": "human", "value": "q"},
                    {"from": "gpt", "value": "a"},
                ]
            },
            [Message("system", "s"), USER, ANSWER],
        ),
        (
            {
                "system": "s",
                "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
            },
            [Message("system", "s"), USER, ANSWER],
        ),
        ({"prompt": "q", "completion": "a"}, [USER, ANSWER]),
        (
            {
                "prompt": [{"role": "user", "content": "q"}],
                "completion": [{"role": "assistant", "content": "a"}],
            },
            [USER, ANSWER],
        ),
        ({"instruction": "q", "input": "", "output": "a"}, [USER, ANSWER]),
        ({"instruction": "q", "output": "a"}, [USER, ANSWER]),
        ({"instruction": "q", "input": "more", "output": "a"}, [Message("user", "q\n\nmore"), ANSWER]),
        (
            {"instruction": "q", "input": None, "output": {"名": [1]}},
            [USER, Message("assistant", '{"名": [1]}')],
        ),
        (
            {"instruction": "q", "output": "a", "history": [["q1", "a1"]], "system": "s"},
            [Message("system", "s"), Message("user", "q1"), Message("assistant", "a1"), USER, ANSWER],
        ),
    ],
)
def test_formats(row: dict[str, Any], expected: list[Message]) -> None:
    assert list(to_example(row, "s", 0).messages) == expected


def test_plain_text() -> None:
    example = to_example({"curid": "1", "text": "レッドフォックス株式会社"}, "s", 3)
    assert (example.text, example.messages, example.row_id) == ("レッドフォックス株式会社", (), "s#3")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"question": "q", "reply": "a"}, "messages, conversations"),
        ({}, "messages, conversations"),
        ({"text": "  "}, "text that is not empty"),
        ({"messages": []}, "at least one message"),
        ({"conversations": [], "system": "s"}, "at least one message"),
        ({"messages": "not json"}, "Expecting value"),
        ({"messages": ["q"]}, r"messages\[0\] as an object"),
        ({"messages": [{"role": "robot", "content": "q"}]}, "role among .* found 'robot'"),
        ({"messages": [{"role": "user", "content": "q"}]}, "ends with an assistant's message, not user's"),
        ({"messages": [{"role": "assistant", "content": " \n"}]}, "answer that is not empty"),
        ({"messages": [{"role": "assistant", "content": [{"type": "image"}]}]}, "as text"),
        ({"messages": [{"role": "assistant", "content": "a", "tool_calls": [{}]}]}, "without tool_calls"),
        ({"prompt": "q", "completion": ""}, "answer that is not empty"),
        ({"instruction": "q", "output": "a", "history": ["q1"]}, "history as a list"),
        ({"prompt": "q", "completion": "\ud800"}, "surrogate"),
    ],
)
def test_an_unusable_row_says_why(row: dict[str, Any], expected: str) -> None:
    with pytest.raises(RowError, match=expected) as caught:
        to_example(row, "my/set", 7)
    assert caught.value.problems[0].where == "my/set#7"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "q"}, ["user q", "assistant "]),
        ({"prompt": [{"role": "user", "content": "q"}], "completion": "a"}, ["user q", "assistant a"]),
        ({"instruction": "q", "input": "x", "system": "s"}, ["system s", "user q\n\nx", "assistant "]),
        ({"instruction": "q", "output": {"a": "あ"}}, ["user q", 'assistant {"a": "あ"}']),
        ({"instruction": "q", "output": "a", "prompt": "as a template"}, ["user q", "assistant a"]),
        ({"instruction": "q", "output": None, "history": [["a", "b"]]}, ["user a", "assistant b", "user q"]),
        ({"messages": [{"role": "user", "content": "q"}]}, ["user q", "assistant "]),
        ({"conversations": [{"from": "human", "value": "q"}], "system": "s"}, ["system s", "user q"]),
    ],
)
def test_a_question_may_lack_its_answer(row: dict[str, Any], expected: list[str]) -> None:
    messages = to_example(row, "s", 0, answered=False).messages
    assert messages[-1].role == "assistant"
    assert [f"{message.role} {message.content}" for message in messages][: len(expected)] == expected
    assert len(messages) == len(expected) + (not expected[-1].startswith("assistant"))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": "plain"}, "messages, conversations, prompt, or instruction"),
        ({"prompt": " "}, "a question that is not empty"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "a question that is not empty"),
        ({"messages": []}, "a question that is not empty"),
        ({"messages": "not json"}, "Expecting value"),
        ({"prompt": "\ud800"}, "surrogate"),
    ],
)
def test_what_is_no_question_says_why(row: dict[str, Any], expected: str) -> None:
    with pytest.raises(RowError, match=expected) as caught:
        to_example(row, "rows.jsonl", 7, answered=False)
    assert caught.value.problems[0].where == "rows.jsonl#7"
    assert "SFT_STRICT" not in caught.value.problems[0].remedy


def test_labels_of_row_and_metadata() -> None:
    metadata = {
        "format": "toml",
        "schema": "course",
        "type": "conversion",
        "complexity": "medium",
        "tokens": 3,
    }
    expected = (
        Label("subcategory", "text_to_toml"),
        Label("task", "extract"),
        Label("pack", "pack:hard"),
        Label("pack", "pack:v2"),
        Label("type", "conversion"),
        Label("format", "toml"),
        Label("schema", "course"),
        Label("complexity", "medium"),
    )
    row = {
        "text": "x",
        "subcategory": "text_to_toml",
        "task": "extract",
        "type": None,
        "pack": ["hard", "pack:v2"],
        "metadata": metadata,
    }
    assert to_example(row, "s", 0).labels == expected
    assert to_example({**row, "metadata": json.dumps(metadata)}, "s", 0).labels == expected
    assert to_example({"text": "x", "metadata": "not json"}, "s", 0).labels == ()
    assert to_example({"text": "x", "pack": "one"}, "s", 0).labels == (Label("pack", "pack:one"),)


def test_the_key_follows_the_content_only() -> None:
    plain = to_example({"prompt": "q\r\nx", "completion": "a"}, "s", 0)
    same = to_example({"instruction": "q\nx ", "output": "a\n", "task": "t"}, "other", 5)
    other = to_example({"prompt": "q", "completion": "b"}, "s", 0)
    assert plain.key == same.key != other.key
    assert content_key([], "a") != content_key([Message("assistant", "a")], None)


def source(rows: list[dict[str, str]]) -> Source:
    return Source("set", "set", "train", None, rows, "")


def test_strict_names_five_rows_and_counts_all() -> None:
    rows = [{"text": "fine"}, *({"body": str(i)} for i in range(7))]
    with pytest.raises(InputError) as caught:
        read_examples(source(rows), strict=True)
    assert [problem.where for problem in caught.value.problems[:5]] == [f"set#{i}" for i in range(1, 6)]
    assert caught.value.problems[0].value == "columns body"
    assert "7 rows that cannot be used in all of 8" in str(caught.value)


def test_lenient_skips_and_counts_but_never_everything() -> None:
    table, notices = read_examples(source([{"body": "x"}, {"text": "fine"}]), strict=False)
    assert [example.index for example in table.examples] == [1]
    assert table.skipped == 1
    assert notices[0].startswith("[ERROR] 1 of 2 rows of set")
    with pytest.raises(InputError):
        read_examples(source([{"body": "x"}]), strict=False)
