"""Texts as sets of character shingles, hashed.

Two rows are compared by their question and by their answer: everything that is said before the last answer
without the system message, and what follows the last output marker. Neither width, case nor white space
counts. Shingles are five characters long in every script: Japanese has no words to count.
"""

import unicodedata
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lib.data.reading.rows import Example
from lib.evaluation.answers import answer_part

SHINGLE = 5
"""Characters."""
Hashes: TypeAlias = NDArray[np.uint64]
_QUESTION, _ANSWER = np.uint64(0x51), np.uint64(0xA7)
"""Salts: the same words in a question and in an answer are not the same shingle."""
_MULTIPLIERS = tuple(np.uint64(pow(0x9E3779B97F4A7C15, power, 2**64)) for power in range(1, SHINGLE + 1))


def compared_texts(example: Example, markers: Sequence[str]) -> tuple[str, str]:
    """(question, answer) as they are compared; plain text is all answer."""
    if example.text is not None:
        return "", normal_form(example.text)
    *before, last = example.messages
    question = "\n".join(message.content for message in before if message.role != "system")
    return normal_form(question), normal_form(answer_part(last.content, markers))


def normal_form(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def shingle_hashes(texts: Sequence[tuple[str, str]]) -> tuple[Hashes, NDArray[np.uint64]]:
    """Hashes of all shingles of the texts of many rows, repeats included, and offsets: those of row i are
    hashes[offsets[i] : offsets[i + 1]]. A text shorter than a shingle is one shingle."""
    flat = [text for pair in texts for text in pair]
    encoded = [text.encode("utf-32-le") for text in flat]
    lengths = np.array([len(code) // 4 for code in encoded], dtype=np.int64)
    windows = np.where(lengths > 0, np.maximum(lengths - SHINGLE + 1, 1), 0)
    padding = bytes(4 * (SHINGLE - 1))
    characters = np.frombuffer(padding.join(encoded) + padding, dtype=np.uint32).astype(np.uint64)
    rolled = np.zeros(max(len(characters) - SHINGLE + 1, 0), dtype=np.uint64)
    for place, multiplier in enumerate(_MULTIPLIERS):
        rolled += characters[place : place + len(rolled)] * multiplier
    # Windows that reach over the end of a text stand for nothing.
    starts = np.cumsum(lengths + SHINGLE - 1) - (lengths + SHINGLE - 1)
    ends = np.cumsum(windows)
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - windows, windows)
    chosen = rolled[np.repeat(starts, windows) + within]
    salts = np.tile(np.array([_QUESTION, _ANSWER]), len(texts))
    offsets = np.concatenate([[0], ends[1::2]]).astype(np.uint64)
    return _mixed(chosen + np.repeat(salts, windows)), offsets


def shingle_sets(texts: tuple[str, str]) -> tuple[Hashes, Hashes]:
    """The sorted distinct hashes of one row: of its question and of its answer."""
    question, _ = shingle_hashes([(texts[0], "")])
    answer, _ = shingle_hashes([("", texts[1])])
    return np.unique(question), np.unique(answer)


def jaccard(one: Hashes, other: Hashes) -> float:
    """|A ∩ B| / |A ∪ B| of two sorted sets; 1 where both are empty."""
    if not len(one) and not len(other):
        return 1.0
    both = np.concatenate([one, other])
    both.sort(kind="stable")
    shared = int((both[1:] == both[:-1]).sum())
    return shared / (len(both) - shared)


def _mixed(hashes: Hashes) -> Hashes:
    """splitmix64's finalizer (Steele, Lea, Flood 2014): every bit of the sum reaches every bit."""
    hashes ^= hashes >> np.uint64(30)
    hashes *= np.uint64(0xBF58476D1CE4E5B9)
    hashes ^= hashes >> np.uint64(27)
    hashes *= np.uint64(0x94D049BB133111EB)
    hashes ^= hashes >> np.uint64(31)
    return hashes
