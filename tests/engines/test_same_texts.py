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
    ("float32", "every processor"): "c292759f1c4f44940e73f894d85ce1325261aa49b731e7258c2bfe350ad22e86",
    ("bfloat16", "processors with a matrix unit"): "0a5ad166ad4644cb7f9410ff90dd068fb62d475c45355a316fd272905923c8f8",
    (
        "bfloat16",
        "processors without a matrix unit",
    ): "6641129937e6be2a680296d19243fb9c882ded017e863b71cc1335032aabdf68",
    ("int8", "every processor"): "88f2de0266f06df92088626dcc131556d4a77fd902fd6b72c93574248ad027bc",
    ("int4", "every processor"): "1bfb1e56ee3fc8422685d2a72ceb4d3de4ab39a589fded74e2942a433fef0e54",
}
"""The SHA-256 of the logits after every token of prompts of LENGTHS tokens."""
QUICK = {
    "float32": "20502e5dd3880bed3abccb7528596a07e5c4db7564227a7801ddbb1c81310cf5",
    "int8": "3b1d54cececac54930eb0384ed838a44dbcf15e8f6f1292ef6e9fb4a0d30cc04",
    "int4": "fb577182579df024e23ea3d9d2364642517ae322c2579cd0ee9741af703c6d19",
}
"""The SHA-256 of 24 texts of 12 tokens of ``tales``, and below of 200 texts of 30."""
NIGHTLY = {
    "float32": "f8a1e391f38cedf3831cc66be1c7beaa043d6bcaa34307c1727c6f68f2dcf650",
    "int8": "abcf1f26f37f379dfdb389ab807a6d29b73a5c0b91e76c409728e570e375051a",
    "int4": "f2a59409014c6836191d00459782409a9b0dbedd7b4af832c6aaf9a75ff11ef1",
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
