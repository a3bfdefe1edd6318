"""The logits of ``tales`` and a seed's texts are the same on every processor, and however the tokens are fed.

Each instruction set is compared with committed hashes. ``bfloat16`` has two: with a matrix unit, and without.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

import gpt2lab
from gpt2lab import _native
from gpt2lab.engines.native import NativeEngine
from gpt2lab.engines.precision import machine_group

LENGTHS = (1, 17, 70)
LOGITS = {
    ("float32", "every processor"): "d4398132b9cfb224d59850ca34f659fcae4caf05806680fa08ff8e67dc288564",
    ("bfloat16", "processors with a matrix unit"): "269f234a4c21cd590fcf2d5975b1893fd23a0bea7aa9ffd8cbcaee4defb9433e",
    (
        "bfloat16",
        "processors without a matrix unit",
    ): "6e0c6dc1dd1124bd3ec90790daee9744cf431f3bab1caa611c333b12aae9fa13",
    ("int8", "every processor"): "b46196fe0a72e71c3655f84c8113713b668e306b3d698e51d08b8e7c90488a02",
    ("int4", "every processor"): "a5365382a89753dce0754a7e7ebb1803fe0a9084b05fa016e491bfda41f3d8c7",
}
"""The SHA-256 of the logits after every token of prompts of LENGTHS tokens."""
QUICK = {
    "float32": "20502e5dd3880bed3abccb7528596a07e5c4db7564227a7801ddbb1c81310cf5",
    "int8": "fd20e7ce53b2e04f6feb8cdd57fb45fc59d39e9a218127b0ec94d6ca60cb68e2",
    "int4": "1fa357e28caa0fe818a52a011802213bbb16b8bbb29b5fc6b0e7458e462c7e7b",
}
"""The SHA-256 of 24 texts of 12 tokens of ``tales``, and below of 200 texts of 30."""
NIGHTLY = {
    "float32": "f8a1e391f38cedf3831cc66be1c7beaa043d6bcaa34307c1727c6f68f2dcf650",
    "int8": "99409c6548aed3e94ffcc2e1361fcfca56d97e6c2000784c4428fc02db1ece46",
    "int4": "150fb968948befc97e86430cf1ad006e56de8afb9f93f588a7234ea18aad528a",
}


QUICK_SIZE, NIGHTLY_SIZE = (24, 12), (200, 30)


def open_tales(isa: str, precision: str) -> gpt2lab.LanguageModel:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GPT2LAB_ISA", isa)
        model = gpt2lab.load("tales", precision=precision, threads=2)
        assert model.engine.instruction_set == isa  # opens the engine
    return model


def texts_hash(isa: str, precision: str, n: int, length: int) -> str:
    model = open_tales(isa, precision)
    completions = model.generate("Once upon a time", n=n, length=length, seed=1, top_k=40)
    return hashlib.sha256("\0".join(completion.text for completion in completions).encode()).hexdigest()


def logits_of(engine: NativeEngine, tokens: list[int], sizes: list[int]) -> bytes:
    """Return the logits after each of ``tokens``, fed in calls of these sizes."""
    sequence, parts = engine.new_sequence(), []
    for size, end in zip(sizes, np.cumsum(sizes), strict=True):
        parts.append(engine.forward([sequence], [tokens[end - size : end]], "all"))
    return np.concatenate(parts).tobytes()


def logits_in_all_ways(precision: str, isa: str) -> list[bytes]:
    """Return the logits of prompts fed whole, token by token, and half and half."""
    engine = open_tales(isa, precision).engine
    ways: list[bytes] = [b"", b"", b""]
    for n in LENGTHS:
        tokens = [(37 * i * i + 11 * i) % 50257 for i in range(n)]
        half = n // 2
        for way, sizes in enumerate(([n], [1] * n, [*([half] if half else []), *[1] * (n - half)])):
            ways[way] += logits_of(engine, tokens, sizes)
    return ways


@pytest.mark.parametrize("isa", _native.instruction_sets())
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", "int4"])
def test_logits_of_tales(precision, isa):
    found = {hashlib.sha256(logits).hexdigest() for logits in logits_in_all_ways(precision, isa)}
    assert found == {LOGITS[precision, machine_group(precision, isa)]}


@pytest.mark.parametrize("isa", _native.instruction_sets())
@pytest.mark.parametrize("precision", QUICK)
def test_texts_of_tales(precision, isa):
    assert texts_hash(isa, precision, *QUICK_SIZE) == QUICK[precision]


@pytest.mark.nightly
@pytest.mark.timeout(3600)  # without the instruction, and other programs beside it
@pytest.mark.parametrize("isa", _native.instruction_sets())
@pytest.mark.parametrize("precision", NIGHTLY)
def test_many_texts_of_tales(precision, isa):
    assert texts_hash(isa, precision, *NIGHTLY_SIZE) == NIGHTLY[precision]
