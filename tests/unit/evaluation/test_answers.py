import time

import pytest

from lib.evaluation.answers import answer_part, spoken

MARKERS = ("Output:", "Final:", "Answer:")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('Approach: count.\n\nOutput:\n{"a": 1}\n', '{"a": 1}'),
        ("Output: first\nFinal: second", "second"),
        ("Answer: a\nOutput: b", "b"),
        ("no marker at all\n", "no marker at all"),
        ("Output:\n```json\n{}\n```\nThat is it.", "{}"),
        ("```yaml\na: 1\nb: 2\n```", "a: 1\nb: 2"),
        ("Output:\n```\nx\n```\n```\ny\n```", "x"),
        ("```json\n{}\n```\nOutput: {1}", "{1}"),
        ("Output: an open ``` fence", "an open ``` fence"),
        ("```\nnever closed", "```\nnever closed"),
        ("```json\r\n{}\r\n```\r\n", "{}"),
        ("  ```\n  a: 1\n  ```", "a: 1"),
        ("```\n```", ""),
        ("Output:", ""),
        ("", ""),
        ("<think>Output: draft</think>Output: said", "said"),
        ("<think>\nOutput: {}\n</think>\n{1}", "{1}"),
        ("draft: 1\n</think>\nsaid: 1", "said: 1"),
        ("<think>Output: {}", ""),
        ("出力:\nOutput:\n名前: 花子", "名前: 花子"),
    ],
)
def test_the_document_follows_the_last_marker_inside_the_first_fence(text: str, part: str) -> None:
    assert answer_part(text, MARKERS) == part


def test_without_markers_the_answer_is_the_document() -> None:
    assert answer_part("Output: x", ()) == "Output: x"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plain", "plain"),
        ("<think>a</think>b", "b"),
        ("a</think>b</think>c", "c"),
        ("<think>endless", ""),
        ("<think>a</think><think>endless", ""),
        ("the tag <think> in a sentence", "the tag <think> in a sentence"),
    ],
)
def test_what_is_spoken_follows_the_thoughts(text: str, said: str) -> None:
    assert spoken(text) == said


@pytest.mark.parametrize(
    "piece", ["```\n", "```x\n", "```x\ny\n", "Output:", "<think>", "</think>", "\n", "`"]
)
def test_a_megabyte_takes_no_time(piece: str) -> None:
    started = time.thread_time()
    answer_part(piece * (1_000_000 // len(piece)), MARKERS)
    assert time.thread_time() - started < 1
