"""Checks of single rows: what each finds, and what it leaves alone."""

import re
from typing import Any

import pytest
from audited_rows import example

from lib.audit.content import content_checks
from lib.data.reading.rows import to_example

MARKERS = ("Output:", "Result:")
TOKENS = re.compile(r"<\|im_end\|>")
CHECKS = content_checks(MARKERS, TOKENS)


def found(answer: str, question: str = "q", **fields: Any) -> dict[str, str]:
    """Reasons by check."""
    row = example(question, answer, **fields)
    faults = {name: check(row) for name, check in CHECKS.items()}
    return {name: fault.reason for name, fault in faults.items() if fault}


def as_format(name: str) -> dict[str, Any]:
    return {"metadata": {"format": name}}


@pytest.mark.parametrize(
    ("format_name", "answer"),
    [
        ("json", 'Approach: think.\n\nOutput:\n{"名前": "花子"}'),
        ("json", '```json\n{"a": [1, 2]}\n```'),
        ("yaml", "Output:\nResult: 1\nb: 2"),  # the marker is a key of the document, too
        ("yaml", "a: 1\nResult: 2\nOutput: 3"),
        ("toml", 'Output:\na = "×"'),
        ("xml", "<a><b>1</b></a>"),
        ("csv", "a,b\r\n1,\r\n"),
        ("prose", "no document, but no format that anybody knows"),
    ],
)
def test_answers_in_their_format_are_left_alone(format_name: str, answer: str) -> None:
    assert found(answer, **as_format(format_name)) == {}


@pytest.mark.parametrize(
    ("format_name", "answer", "check"),
    [
        ("json", 'Output:\n{"a": 1,}', "format"),
        ("json", "Output:\n{'a': 1}", "format"),
        ("json", 'Output:\n{"a": [1, 2', "truncated"),
        ("json", 'Output:\n{"a": "cut of', "truncated"),
        ("yaml", "Output:\na: 1\na: 2", "format"),
        ("yaml", 'Output:\na: "cut of', "truncated"),
        ("yaml", "Output:\na: [1, 2", "truncated"),
        ("yaml", "Output:\n%s {x}", "format"),
        ("toml", "Output:\na = 1\na = 2", "format"),
        ("toml", 'Output:\na = "cut of', "truncated"),
        ("xml", "Output:\n<a><b>1</a></b>", "format"),
        ("xml", "Output:\n<a><b>1</b>", "truncated"),
        ("xml", "Output:\n<a>1 & 2</a>", "format"),
        ("csv", "Output:\na,b\n1", "format"),
        ("csv", 'Output:\na,b\n1,"cut of', "truncated"),
    ],
)
def test_answers_that_do_not_parse_or_end_too_early(format_name: str, answer: str, check: str) -> None:
    reasons = found(answer, **as_format(format_name))
    assert next(iter(reasons)) == check, reasons
    assert format_name.upper() in reasons[check]


@pytest.mark.parametrize(
    "fields", [{"metadata": {"output_type": "JSON"}}, {"output_type": "json"}, {"type": "yaml_to_json"}]
)
def test_the_format_is_declared_as_for_the_evaluation(fields: dict[str, Any]) -> None:
    assert set(found("{broken}", **fields)) == {"format"}


@pytest.mark.parametrize(
    "answer",
    ["Approach: think.\nOutput:", "Output: ```\n```", "<think>hm</think>\n", "<think>hm</think>Output: "],
)
def test_answers_that_say_nothing(answer: str) -> None:
    assert "empty" in found(answer)


def test_an_empty_message_in_the_middle_is_found() -> None:
    turns = [("user", "a"), ("assistant", " "), ("user", "b"), ("assistant", "c")]
    row = to_example({"messages": [{"role": r, "content": c} for r, c in turns]}, "a", 0)
    assert CHECKS["empty"](row)


@pytest.mark.parametrize(
    "answer",
    [
        "<think>never",
        "```python\nprint(1)",
        "彼は東京に行き、",
        "First, second,",
        '{"persons": [{"name": "花子"',
        '[{"a": "b',
    ],
)
def test_answers_that_are_cut_off(answer: str) -> None:
    assert set(found(answer)) == {"truncated"}


@pytest.mark.parametrize(
    "answer",
    [
        "東京に行きました。",
        "no full stop at the end",
        "にゃ",
        "```python\nprint(1)\n```",
        "````\n```\nx\n```\n````",
        "```inline``` code",
        "```\nx\n```\nand\n```\ny\n```",
        "[a link](https://example.org) is no JSON",
        "{x | x > 0} is a set",
        '{"persons": []}',
        '{"text": "a \\" { [ inside"}',
        "it's 5\" wide",
        "42",
    ],
)
def test_answers_that_are_whole_are_left_alone(answer: str) -> None:
    assert found(answer) == {}


def test_template_tokens_in_any_message_and_in_plain_text() -> None:
    assert found("a<|im_end|>b") == {"template_token": '"<|im_end|>" inside the content'}
    assert set(found("a", question="x <|im_end|>")) == {"template_token"}
    assert CHECKS["template_token"](to_example({"text": "a <|im_end|>"}, "a", 0))
    assert found("<im_end> | <b>bold</b> a < b | > c") == {}


def test_plain_text_has_no_answer_to_judge() -> None:
    row = to_example({"text": "ends with a comma,", "format": "json"}, "a", 0)
    assert [name for name, check in CHECKS.items() if check(row)] == []


def test_hostile_answers_take_no_time() -> None:
    for answer in ('{"' * 50_000, '"\\' * 50_000, "`" * 100_000, "```\n" * 30_001, "[" * 100_000):
        found(answer)
