"""MinHash signatures of rows, cut into bands: what finds the few rows worth comparing among very many.

Two rows whose shingles have Jaccard similarity s agree in each place of a signature with probability s, and
in a whole band of r places with sʳ. With b bands they meet with probability 1 - (1 - sʳ)ᵇ (Leskovec,
Rajaraman, Ullman: Mining of Massive Datasets, chapter 3).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from lib.audit.shingles import shingle_hashes

PLACES = 256
"""Of a signature."""
FOUND = 0.999
"""Probability with which a row exactly as similar as the threshold is met; above it is soon 1."""
_SEED = 20_261_125
_CHARACTERS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Sketches:
    """One line a row."""

    bands: NDArray[np.uint64]
    """(rows, bands): rows with equal numbers in a column meet."""
    places: NDArray[np.uint8]
    """(rows, PLACES): the low byte of every place; the share of equal ones estimates the similarity."""


def sketch(texts: Iterable[tuple[str, str]], threshold: float) -> Sketches:
    """Sketches of (question, answer) texts, of which only about a million characters are held at a time."""
    width = band_width(threshold)
    bands, places = [], []
    for batch in _batches(texts):
        hashes, offsets = shingle_hashes(batch)
        signatures = np.array(
            RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, PLACES, _SEED).to_rows(),
            dtype=np.uint32,
        ).reshape(len(batch), PLACES)
        bands.append(_band_keys(signatures, width))
        places.append(signatures.astype(np.uint8))
    if not bands:
        return Sketches(np.empty((0, PLACES // width), np.uint64), np.empty((0, PLACES), np.uint8))
    return Sketches(np.concatenate(bands), np.concatenate(places))


def band_width(threshold: float) -> int:
    """The widest band, and so the fewest rows to compare, that still meets FOUND at the threshold."""
    fitting = (
        width for width in range(PLACES, 0, -1) if 1 - (1 - threshold**width) ** (PLACES // width) >= FOUND
    )
    return next(fitting, 1)


def _band_keys(signatures: NDArray[np.uint32], width: int) -> NDArray[np.uint64]:
    """One number for each band of a signature; equal bands have equal numbers."""
    bands = PLACES // width
    cut = signatures[:, : bands * width].reshape(len(signatures), bands, width)
    keys = np.zeros((len(signatures), bands), dtype=np.uint64)
    for place in range(width):
        keys = (keys ^ cut[:, :, place]) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def _batches(texts: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    characters = 0
    for pair in texts:
        batch.append(pair)
        characters += len(pair[0]) + len(pair[1])
        if characters >= _CHARACTERS_AT_ONCE:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
