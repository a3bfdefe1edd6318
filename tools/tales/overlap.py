"""Sequences of 13 words that texts share, found through hashes.

Words are compared in small letters and without punctuation. This module knows nothing of books or files.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

LENGTH = 13
Hashes = NDArray[np.uint64]


@lru_cache(maxsize=1 << 18)
def _hash(word: str) -> int:
    data = word.encode()
    return zlib.crc32(data) << 32 | zlib.crc32(b"_" + data)


def grams(text: str) -> Hashes:
    """Return a 64-bit hash of each sequence of 13 words, uint64 [n], in order."""
    words = np.asarray([_hash(word) for word in re.findall(r"[a-z0-9]+", text.lower())], np.uint64)
    count = len(words) - LENGTH + 1
    if count < 1:
        return np.empty(0, np.uint64)
    total = np.zeros(count, np.uint64)
    for place in range(LENGTH):
        total = (total ^ words[place : place + count]) * np.uint64(0x9E3779B97F4A7C15)
        total ^= total >> np.uint64(29)
    return total


def seen_before(texts: Sequence[Hashes]) -> NDArray[np.float64]:
    """Return the share of each text's sequences that also occur in an earlier text, float64 [len(texts)]."""
    sizes = np.asarray([len(text) for text in texts], np.int64)
    owner = np.repeat(np.arange(len(texts)), sizes)
    _, first, which = np.unique(np.concatenate(texts), return_index=True, return_inverse=True)
    shared = owner[first][which] < owner
    counts = np.bincount(owner, weights=shared, minlength=len(texts))
    found: NDArray[np.float64] = counts / np.maximum(1, sizes)
    return found


def distinct(texts: Sequence[Hashes]) -> Hashes:
    """Return the distinct sequences of texts, ascending."""
    return np.unique(np.concatenate([*texts, np.empty(0, np.uint64)]))


def shared_with(texts: Sequence[Hashes], others: Hashes) -> NDArray[np.int64]:
    """Return the number of each text's sequences that occur in ``others``, which are :func:`distinct`, int64 [n]."""
    places = [np.searchsorted(others, text).clip(0, len(others) - 1) for text in texts]
    return np.asarray([int((others[at] == text).sum()) for at, text in zip(places, texts, strict=True)], np.int64)
