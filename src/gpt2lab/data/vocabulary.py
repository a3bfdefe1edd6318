"""Facts that datasets need about a vocabulary: its fingerprint, and the amount of text in each token."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gpt2lab.tokenizer import Tokenizer


@lru_cache(maxsize=2)
def vocabulary_hash(tokenizer: Tokenizer) -> str:
    """Return the SHA-256, in hex, of all tokens in id order, each as 4 bytes of length and its own bytes."""
    tokens = (tokenizer.token_bytes(id) for id in range(tokenizer.n_vocab))
    return hashlib.sha256(b"".join(len(token).to_bytes(4, "little") + token for token in tokens)).hexdigest()


@lru_cache(maxsize=2)
def token_sizes(tokenizer: Tokenizer) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the number of bytes in each token, and of characters that begin in it; int64 [n_vocab] each."""
    tokens = [tokenizer.token_bytes(id) for id in range(tokenizer.n_vocab)]
    characters = [sum(byte & 0xC0 != 0x80 for byte in token) for token in tokens]
    return np.asarray([len(token) for token in tokens]), np.asarray(characters)
