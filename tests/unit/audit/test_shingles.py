"""Shingles: what counts as the same, and that hashing in bulk is hashing one by one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lib.audit.shingles import (
    SHINGLE,
    compared_texts,
    jaccard,
    normal_form,
    shingle_hashes,
    shingle_sets,
)
from lib.data.reading.rows import to_example

TEXT = st.text(alphabet="ab あ漢😀\n", max_size=30)


def slow_shingles(text: str) -> set[str]:
    if not text:
        return set()
    return {text[i : i + SHINGLE] for i in range(max(len(text) - SHINGLE + 1, 1))}


def slow_jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other) if one | other else 1.0


@given(st.lists(st.tuples(TEXT, TEXT), max_size=6))
def test_many_rows_hash_as_one_by_one(texts: list[tuple[str, str]]) -> None:
    hashes, offsets = shingle_hashes(texts)
    assert len(offsets) == len(texts) + 1
    assert offsets[-1] == len(hashes)
    for i, pair in enumerate(texts):
        own = hashes[int(offsets[i]) : int(offsets[i + 1])]
        question, answer = shingle_sets(pair)
        assert set(own.tolist()) == {*question.tolist(), *answer.tolist()}


@given(TEXT, TEXT)
def test_similarity_is_that_of_the_sets_of_five_characters(one: str, other: str) -> None:
    expected = slow_jaccard(slow_shingles(one), slow_shingles(other))
    for place in (0, 1):
        sets = [shingle_sets((text, "") if place == 0 else ("", text))[place] for text in (one, other)]
        assert jaccard(*sets) == expected


def test_the_same_words_asked_and_answered_are_not_the_same() -> None:
    question, answer = shingle_sets(("今日は晴れです", "今日は晴れです"))
    assert len(question) == len(answer) == 3
    assert jaccard(question, answer) == 0


def test_width_case_and_white_space_do_not_count() -> None:
    assert normal_form("ＡＢＣ　１２３\r\n ｶﾞｷﾞ ") == "abc 123 ガギ"


def test_what_is_compared_of_a_row() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "First?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "As JSON."},
        {"role": "assistant", "content": 'Approach: think.\n\nOutput:\n{"a": 1}'},
    ]
    conversation = to_example({"messages": messages}, "a", 0)
    assert compared_texts(conversation, ("Output:",)) == ("first? yes. as json.", '{"a": 1}')
    assert compared_texts(to_example({"text": "Plain TEXT"}, "a", 0), ()) == ("", "plain text")


def test_hashes_are_the_same_on_every_machine() -> None:
    question, answer = shingle_sets(("こんにちは世界", "ok"))
    assert np.concatenate([question, answer]).tolist() == [
        2176862528461474741,
        6628059472167507122,
        17270531078494917441,
        1817083903337582078,
    ]
