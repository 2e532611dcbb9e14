"""Tokens of texts out of the tokens of their words, each of which is tokenised once.

The texts of a data set repeat their words; a byte-pair tokenizer takes its time for each of them anew. A text
is cut into words by the tokenizer's own expression, run by another engine. So that nothing else comes out:

- only tokenizers of a form whose words do not depend on each other are taken;
- each character is tried in both engines, in all neighbourhoods that the expression could tell apart, before
  the first text with it is cut: what an engine knows of it is its class;
- each word is put to the tokenizer alone, and must come back as one word;
- of every batch one text is tokenised as a whole as well, and must come out the same.

A text that fails one of these is tokenised as a whole.
"""

import json
from collections.abc import Sequence
from itertools import chain
from typing import Any
from unicodedata import is_normalized

import regex
from tokenizers import Tokenizer

from lib.data.tokens import TextTokens, encode_texts

KEPT_WORDS = 200_000
_BEFORE = ("", "a", "1", " ", ".", "'", "\n")
_BEHIND = ("", "a", "1", " ", "\n")
Word = tuple[tuple[int, ...], tuple[int, ...]]
"""Ids, and the characters at which these tokens start."""


class WordTokenizer:
    """Raises ValueError for a tokenizer whose texts cannot be put together from words."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        parts = json.loads(tokenizer.to_str())
        self._tokenizer = tokenizer
        self._words = regex.compile(_expression(parts))
        self._added = {token["content"]: token["id"] for token in parts["added_tokens"]}
        longest_first = sorted(self._added, key=lambda text: (-len(text), text))
        self._borders = regex.compile("(" + "|".join(map(regex.escape, longest_first)) + ")")
        self._known: dict[str, Word | None] = {}
        self._characters: dict[str, bool] = {}
        self._trusted = True

    def encode(self, texts: list[str]) -> list[TextTokens]:
        """The same as `encode_texts`."""
        pieces = [self._pieces(text) if self._trusted else None for text in texts]
        self._learn({word for row in pieces if row for word in row})
        found = [None if row is None else self._joined(row) for row in pieces]
        compared = next((place for place, row in enumerate(found) if row is not None), None)
        whole = [place for place, row in enumerate(found) if row is None or place == compared]
        made = dict(zip(whole, encode_texts(self._tokenizer, [texts[place] for place in whole]), strict=True))
        if compared is not None and not _same(found[compared], made[compared]):
            self._trusted = False
            return encode_texts(self._tokenizer, texts)
        return [made[place] if row is None else row for place, row in enumerate(found)]

    def _pieces(self, text: str) -> list[str] | None:
        """Words and added tokens of the text, in order; None where the engines may cut it differently."""
        if not is_normalized("NFC", text) or not all(map(self._is_known, set(text))):
            return None
        segments = self._borders.split(text) if self._added else [text]
        words = (
            [segment] if place % 2 else self._words.findall(segment) for place, segment in enumerate(segments)
        )
        found = list(chain.from_iterable(words))
        return found if sum(map(len, found)) == len(text) else None

    def _is_known(self, character: str) -> bool:
        known = self._characters.get(character)
        if known is None:
            known = self._characters[character] = self._is_same_in_both(character)
        return known

    def _is_same_in_both(self, character: str) -> bool:
        tries = [f"{before}{character}{behind}" for before in _BEFORE for behind in _BEHIND]
        cut = self._tokenizer.pre_tokenizer
        return all(
            self._words.findall(text) == [text[first:last] for _, (first, last) in cut.pre_tokenize_str(text)]
            for text in (*tries, character * 3)
        )

    def _learn(self, words: set[str]) -> None:
        if len(self._known) > KEPT_WORDS:
            self._known.clear()
        new = [word for word in words if word not in self._known]
        encodings = self._tokenizer.encode_batch(new, add_special_tokens=False)
        for word, encoding in zip(new, encodings, strict=True):
            if word in self._added:
                self._known[word] = ((self._added[word],), (0,))
            elif any(encoding.word_ids):
                self._known[word] = None  # several words, where nothing stands beside it
            else:
                self._known[word] = (tuple(encoding.ids), tuple(first for first, _ in encoding.offsets))

    def _joined(self, words: Sequence[str]) -> TextTokens | None:
        ids: list[int] = []
        starts: list[int] = []
        position = 0
        for word in words:
            known = self._known[word]
            if known is None:
                return None
            ids += known[0]
            starts += [position + start for start in known[1]] if position else known[1]
            position += len(word)
        return TextTokens(ids, starts.__getitem__)


def word_tokenizer(tokenizer: Tokenizer) -> WordTokenizer | None:
    """None for a tokenizer whose texts cannot be put together from words."""
    try:
        return WordTokenizer(tokenizer)
    except (ValueError, regex.error):
        return None


def _expression(parts: dict[str, Any]) -> str:
    """What a byte-level BPE cuts its words by."""
    cut = parts["pre_tokenizer"] or {}
    steps = cut["pretokenizers"] if cut.get("type") == "Sequence" else [cut]
    flags = ("lstrip", "rstrip", "single_word")
    simple = not any(token[flag] for token in parts["added_tokens"] for flag in flags)
    known = [step.get("type") for step in steps] == ["Split", "ByteLevel"] and parts["model"]["type"] == "BPE"
    normal = (parts["normalizer"] or {"type": "NFC"})["type"] == "NFC"
    if not (simple and known and normal) or parts["model"].get("dropout"):
        raise ValueError("another form of tokenizer")
    split, letters = steps
    if split["behavior"] != "Isolated" or split["invert"] or "Regex" not in split["pattern"]:
        raise ValueError("another form of words")
    if letters["add_prefix_space"] or letters["use_regex"]:
        raise ValueError("words that are cut again")
    expression: str = split["pattern"]["Regex"]
    return expression


def _same(one: TextTokens | None, other: TextTokens) -> bool:
    return one is not None and [(token, one.start_of(place)) for place, token in enumerate(one.ids)] == [
        (token, other.start_of(place)) for place, token in enumerate(other.ids)
    ]
