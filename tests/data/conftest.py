"""Vocabularies that are quick to build: GPT-2's own, and one of bytes."""

from __future__ import annotations

import pytest

from gpt2lab.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def gpt2() -> Tokenizer:
    return Tokenizer.gpt2()


@pytest.fixture(scope="session")
def bytewise() -> Tokenizer:
    """Build a vocabulary of the 256 bytes and ``<|endoftext|>``, whose id is 256."""
    first = list(Tokenizer.gpt2().encoder())[:256]
    return Tokenizer.from_files({**{token: id for id, token in enumerate(first)}, "<|endoftext|>": 256}, [])
