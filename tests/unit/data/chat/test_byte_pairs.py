"""tiktoken's tokens and places are those of `tokenizers`, or it is not asked."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from lib.data.chat.byte_pairs import BYTES, PATTERNS, BytePairs
from lib.data.chat.tokens import encode_texts

ROOT = Path(__file__).parents[4]
EMBEDDED = ROOT / "assets/tiny-moe/tokenizer.json"
QWEN3 = ROOT.parent / "shared/data/tokenizer_qwen3/vocab.json"
CHARACTER = {byte: name for name, byte in BYTES.items()}
ASSIGNED = [chr(code) for code in (*range(0x32400), *range(0xE0000, 0xE0200)) if not 0xD800 <= code <= 0xF8FF]
"""And what a later Unicode may assign there; beyond are private use and planes without any character."""
MIXED = "abÀ漢字かなカナー 1٣\n\r\t'st\u3000e\u0301<|im_end>😀"
FRAMES = ("a{0}a", "1{0}1", " {0} ", "\n{0}\n", "!{0}!", "{0}{0}", "'{0}", "'s{0}")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(EMBEDDED))


@pytest.fixture(scope="module")
def pairs(tokenizer: Tokenizer) -> BytePairs:
    found = BytePairs.of(tokenizer)
    assert found is not None
    return pickle.loads(pickle.dumps(found))  # as another process gets it


def assert_the_same(pairs: BytePairs, tokenizer: Tokenizer, text: str) -> None:
    fast, (slow,) = pairs.encode(text), encode_texts(tokenizer, [text])
    assert fast is not None
    assert list(fast.ids) == list(slow.ids)
    for start, end in ((0, len(text)), (len(text) // 3, len(text) // 2)):
        first, starts = fast.between(start, end)
        assert (first, tuple(starts)) == slow.between(start, end)


@settings(max_examples=200, deadline=None)
@given(
    text=st.one_of(st.text(), st.text("abÀ漢字かなカナー 1٣\n\r\t'st\u3000e\u0301<|im_end>😀", max_size=60))
)
def test_tokens_and_places_are_the_same(pairs: BytePairs, tokenizer: Tokenizer, text: str) -> None:
    assert_the_same(pairs, tokenizer, text)


def test_of_a_real_tokenizer_too(tmp_path: Path) -> None:
    if not QWEN3.exists():
        pytest.skip(f"{QWEN3.parent} is not on this machine")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(QWEN3.parent).backend_tokenizer
    pairs = BytePairs.of(theirs)
    assert pairs is not None
    for text in ("<|im_start|>user\n東京は I'll\n\n  </think>x<|im_end|>\n", "".join(ASSIGNED[::41])):
        composed = theirs.normalizer.normalize_str(text)
        assert_the_same(pairs, theirs, composed)
    assert pairs.encode("e\u0301") is None  # not in NFC


def test_texts_for_the_slow_one(pairs: BytePairs) -> None:
    assert pairs.encode("\ud800") is None


@pytest.mark.parametrize("name", PATTERNS)
def test_words_are_cut_alike(name: str) -> None:
    for first in range(0, len(ASSIGNED), 40_000):
        _compare_cuts(PATTERNS[name], ASSIGNED[first : first + 40_000 : 97])


@pytest.mark.slow
@pytest.mark.parametrize("name", PATTERNS)
def test_words_are_cut_alike_for_every_character(name: str) -> None:
    for first in range(0, len(ASSIGNED), 2_000):
        _compare_cuts(PATTERNS[name], ASSIGNED[first : first + 2_000])


def _compare_cuts(pattern: str, characters: list[str]) -> None:
    """With merges of every character and what stands beside it: a cut between them shows."""
    merges: dict[str, tuple[str, str]] = {}
    for written in map(_written, characters):
        for length in range(2, len(written) + 1):
            merges.setdefault(written[:length], (written[: length - 1], written[length - 1]))
    for written in map(_written, characters):
        for beside in (written, *map(_written, "a1 \n!'")):
            merges.setdefault(beside + written, (beside, written))
            merges.setdefault(written + beside, (written, beside))
    tokenizer = _tokenizer(pattern, list(merges.values()))
    pairs = BytePairs.of(tokenizer)
    assert pairs is not None
    texts = [frame.format(character) for character in characters for frame in FRAMES]
    slow = encode_texts(tokenizer, texts)
    different = [
        text for text, own in zip(texts, slow, strict=True) if list(pairs.encode(text).ids) != list(own.ids)
    ]
    assert different == []


def _written(text: str) -> str:
    return "".join(CHARACTER[byte] for byte in text.encode())


def _tokenizer(pattern: str, merges: list[tuple[str, str]]) -> Tokenizer:
    names = [*BYTES, *(first + second for first, second in merges)]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges))
    cut = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(False, use_regex=False)])
    return tokenizer


def test_a_token_that_its_own_bytes_do_not_come_to() -> None:
    """`tokenizers` makes ab c of abc, tiktoken would go on to abc."""
    merges = [("a", "b"), ("b", "c"), ("a", "bc")]
    assert BytePairs.of(_tokenizer(PATTERNS["Llama 3"], merges[:2])) is not None
    assert BytePairs.of(_tokenizer(PATTERNS["Llama 3"], merges)) is None


def _swapped(parts: dict[str, Any]) -> None:
    merges = parts["model"]["merges"]
    merges[5], merges[6] = merges[6], merges[5]


def _changed(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(parts: dict[str, Any]) -> None:
        parts["model"][name] = value

    return change


def _added(**flags: bool) -> Callable[[dict[str, Any]], None]:
    def change(parts: dict[str, Any]) -> None:
        parts["added_tokens"][1].update(flags)

    return change


def _longer(parts: dict[str, Any]) -> None:
    parts["added_tokens"].append({**parts["added_tokens"][1], "id": 4_095, "content": "<|im_start|>user"})


def _pattern(parts: dict[str, Any]) -> None:
    parts["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\w+|\W+"


def _normalised(parts: dict[str, Any]) -> None:
    parts["normalizer"] = {"type": "Lowercase"}


@pytest.mark.parametrize(
    "change",
    [
        _swapped, _longer, _pattern, _normalised,
        _changed("dropout", 0.1), _changed("ignore_merges", True), _changed("end_of_word_suffix", "</w>"),
        _added(lstrip=True), _added(rstrip=True), _added(single_word=True), _added(normalized=True),
    ],
)  # fmt: skip
def test_what_is_not_proven_is_left_to_the_slow_one(change: Callable[[dict[str, Any]], None]) -> None:
    parts = json.loads(EMBEDDED.read_text(encoding="utf-8"))
    assert BytePairs.of(Tokenizer.from_str(json.dumps(parts))) is not None
    change(parts)
    assert BytePairs.of(Tokenizer.from_str(json.dumps(parts))) is None


def test_other_models_are_left_to_the_slow_one() -> None:
    assert BytePairs.of(Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0))) is None
    assert BytePairs.of(Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))) is None
