"""Byte-level BPE by tiktoken, in a third of the time of `tokenizers`, where both are proven to give the same
tokens.

They differ in what they merge. `tokenizers` merges a pair that stands in its list of merges, the earliest
first. tiktoken merges any pair whose bytes together are a token, the one with the lowest rank first. With the
token's id as rank both do the same if

1. ids rise along the list of merges, so that each merge makes a token that no other makes;
2. the parts of each merge have lower ids than what it makes;
3. `tokenizers` makes every such token out of its own bytes.

For by (1) and (2) both merge in the order of ids: a merge only makes later ones possible. Let tiktoken be the
first to merge a pair (a, b) to t that is not the listed one. Nothing was merged across the ends of a and b so
far; so t's bytes alone would have come to (a, b) too, by merges that both share. But by (3) they come to the
listed pair.

Texts are cut into words first, by a regular expression that the two read with different engines. Only those
are taken with which both cut all characters alike (tests/unit/data/chat/test_byte_pairs.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from unicodedata import is_normalized

import numpy
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from tiktoken import Encoding

PATTERNS = {
    "GPT-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "Llama 3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "Qwen 2 and 3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "the embedded base": r"\p{Latin}+|\p{Han}+|\p{Hiragana}+|[\p{Katakana}ー]+|\p{L}+|\p{N}|[^\p{L}\p{N}]+",
}
"""How texts are cut into words, by the models that do so."""
_WITHOUT_PATTERN = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
_PLAIN_MODEL = {
    "type": "BPE",
    "dropout": None,
    "unk_token": None,
    "byte_fallback": False,
    "ignore_merges": False,
}
_PLAIN_ADDED = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)


Integers = numpy.ndarray[Any, numpy.dtype[numpy.int32]]


@dataclass(frozen=True)
class LocatedTokens:
    """A text as tokens, each with so many of its bytes."""

    text: str
    ids: Any
    lengths: Integers
    """By token id."""

    def between(self, start: int, end: int) -> tuple[int, Sequence[int]]:
        """As TextTokens has it. A token that starts within a character is taken to start where that does."""
        part = self.text[start:end]
        written, before = part.encode(), len(self.text[:start].encode())
        first, behind = self._begins.searchsorted((before, before + len(written)))
        begins: Any = self._begins[first:behind] - before
        return int(first), begins if len(written) == len(part) else _characters(written)[begins]

    @cached_property
    def _begins(self) -> Integers:
        """The byte at which each token begins."""
        lengths = self.lengths[self.ids]
        begins: Integers = lengths.cumsum() - lengths
        return begins


@dataclass(frozen=True)
class BytePairs:
    """What tiktoken needs to know of a tokenizer."""

    pattern: str
    ranks: Mapping[bytes, int]
    added: Mapping[str, int]
    """Tokens that are found before the text is cut."""
    composed: bool
    """Whether texts are normalised to NFC first. Here only those are taken that are in that form already."""

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> BytePairs | None:
        """None where it is not proven that tiktoken gives the same tokens."""
        parts = json.loads(tokenizer.to_str())
        model, added = parts["model"], parts["added_tokens"]
        pattern = _pattern_of(parts["pre_tokenizer"])
        plain = _holds(model, _PLAIN_MODEL) and all(_holds(token, _PLAIN_ADDED) for token in added)
        affixes = model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
        if pattern is None or not plain or affixes or parts["normalizer"] not in (None, {"type": "NFC"}):
            return None
        names = {token["content"]: token["id"] for token in added}
        tokens = _merged_in_order(model["vocab"], model["merges"])
        if not tokens or _one_begins_another(names) or not _makes_each(tokenizer, tokens):
            return None
        ranks = {bytes(map(BYTES.__getitem__, name)): rank for name, rank in tokens.items()}
        return cls(pattern, ranks, names, composed=parts["normalizer"] is not None)

    def encode(self, text: str) -> LocatedTokens | None:
        """None for a text that only `tokenizers` can be asked about."""
        if self.composed and not is_normalized("NFC", text):
            return None
        try:
            ids = self._encoding.encode_to_numpy(text, allowed_special=self._names, disallowed_special=())
        except ValueError:  # lone surrogates (UnicodeEncodeError); more spaces than the engine can take
            return None
        return LocatedTokens(text, ids.view(numpy.int32), self._lengths)

    @cached_property
    def _encoding(self) -> Encoding:
        from tiktoken import Encoding

        return Encoding(
            "byte pairs",
            pat_str=self.pattern,
            mergeable_ranks=dict(self.ranks),
            special_tokens=dict(self.added),
        )

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.added)

    @cached_property
    def _lengths(self) -> Integers:
        """Token id → bytes."""
        sizes = {rank: len(token) for token, rank in self.ranks.items()}
        sizes |= {rank: len(name.encode()) for name, rank in self.added.items()}
        lengths = numpy.zeros(max(sizes) + 1, numpy.int32)
        lengths[list(sizes)] = list(sizes.values())
        return lengths

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which makes its own encoder."""
        return {name: getattr(self, name) for name in ("pattern", "ranks", "added", "composed")}


def _pattern_of(cutter: Any) -> str | None:
    """The regular expression that cuts texts, if one of PATTERNS and nothing else does."""
    match cutter:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return PATTERNS["GPT-2"]
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
                last,
            ],
        } if _holds(last, _WITHOUT_PATTERN) and pattern in PATTERNS.values():
            return str(pattern)
    return None


def _holds(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(name in found and found[name] == value for name, value in wanted.items())


def _merged_in_order(vocabulary: Mapping[str, int], merges: list[tuple[str, str]]) -> dict[str, int]:
    """All tokens that merges make, and the single bytes they begin with; none where (1) or (2) does not hold,
    or a byte has no token."""
    made = [vocabulary[first + second] for first, second in merges]
    rising = all(earlier < later for earlier, later in pairwise(made))
    parts = (max(vocabulary[first], vocabulary[second]) for first, second in merges)
    if not rising or any(part >= whole for part, whole in zip(parts, made, strict=True)):
        return {}
    if not BYTES.keys() <= vocabulary.keys():
        return {}
    singles = {name: vocabulary[name] for name in BYTES}
    return singles | {first + second: rank for (first, second), rank in zip(merges, made, strict=True)}


def _makes_each(tokenizer: Tokenizer, tokens: Mapping[str, int]) -> bool:
    """(3), asked of the model itself, without cutting texts."""
    found = Tokenizer(tokenizer.model).encode_batch_fast(list(tokens), add_special_tokens=False)
    return all(one.ids == [rank] for one, rank in zip(found, tokens.values(), strict=True))


def _one_begins_another(names: Mapping[str, int]) -> bool:
    """Which of two is found first is then a matter of the engine."""
    return any(second.startswith(first) for first, second in pairwise(sorted(names)))


def _characters(written: bytes) -> Integers:
    """For each byte of UTF-8 the character that it belongs to."""
    begins = (numpy.frombuffer(written, numpy.uint8) & 0xC0) != 0x80
    return begins.cumsum(dtype=numpy.int32) - 1


def _bytes_by_character() -> dict[str, int]:
    """How byte-level tokenizers write bytes as characters: the printable ones of Latin-1 as they are, the
    others from U+0100 on (GPT-2's encoder.py, `bytes_to_unicode`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTES = _bytes_by_character()
