"""Texts out of words are the tokens of whole texts, or are tokenised whole."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from lib.data.stored.word_tokens import WordTokenizer, word_tokenizer
from lib.data.tokens import TextTokens, encode_texts

QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
SHARED = Path(__file__).parents[5] / "shared" / "data" / "tokenizer_qwen3"
SAMPLE = [
    "It's a test, isn't it? 'S",
    "犯人は東京都港区の山田太郎（36）。",
    "a  b   c\n\n  d\t\te \r\n x",
    "Ünïcödé naïve",
    "1234 x1y2 ３４ Ⅷ",
    "e\u0301 decomposed",
    "🙂👨‍👩‍👧 ﷽ \u00a0\u3000 \u200b",
    "<|im_start|>user\nq<|im_end|>\n",
    '{"persons":[{"name":"脇坂亮介","age":"59"}]}',
    "ſ'ſ 'ſ K'LL ǅ ª ² \u2028 \x85",
    "",
]


def byte_level(expression: str = QWEN, **keys: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(expression), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(**({"add_prefix_space": False, "use_regex": False} | keys))]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(SAMPLE, trainer)
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in ("<|im_start|>", "<|im_end|>", "<|im")]
    )
    return tokenizer


def plain(rows: list[TextTokens]) -> list[list[tuple[int, int]]]:
    return [[(token, row.start_of(place)) for place, token in enumerate(row.ids)] for row in rows]


ONE = byte_level()
WORDS = WordTokenizer(ONE)
CHARACTERS = st.text(
    alphabet=st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" \n\r\t's'.1aA"))
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(CHARACTERS, st.sampled_from(SAMPLE)), min_size=1, max_size=8), st.randoms())
def test_any_text_has_the_tokens_that_it_has_as_a_whole(texts: list[str], chance: random.Random) -> None:
    joined = ["".join(chance.sample(texts, k=chance.randint(1, len(texts)))) for _ in range(4)]
    assert plain(WORDS.encode([*texts, *joined])) == plain(encode_texts(ONE, [*texts, *joined]))
    assert WORDS._trusted


@pytest.mark.skipif(not SHARED.exists(), reason="the Qwen3 tokenizer is not beside this repository")
def test_the_tokenizer_of_qwen3() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(SHARED).backend_tokenizer
    words = word_tokenizer(tokenizer)
    assert words is not None
    assert words._pieces(SAMPLE[1]) is not None
    assert plain(words.encode(SAMPLE)) == plain(encode_texts(tokenizer, SAMPLE))


def test_a_tokenizer_of_another_form_is_left_alone() -> None:
    for other in (byte_level(use_regex=True), byte_level(add_prefix_space=True), Tokenizer(models.BPE())):
        assert word_tokenizer(other) is None
    stripping = byte_level()
    stripping.add_tokens([AddedToken("<x>", lstrip=True)])
    assert word_tokenizer(stripping) is None


def test_a_difference_that_the_guards_miss_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = WordTokenizer(byte_level())
    monkeypatch.setattr(words, "_pieces", lambda text: list(text))
    monkeypatch.setattr(words, "_is_known", lambda character: True)
    texts = ["It's a test, isn't it?", "test"]
    assert plain(words.encode(texts)) == plain(encode_texts(byte_level(), texts))
    assert not words._trusted
    assert json.dumps(plain(words.encode(texts))) == json.dumps(plain(encode_texts(byte_level(), texts)))
