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
    ("float32", "every processor"): "e85abb6098cbe055420baab198b1c65c48c96981e78e321603fb0bd43a98626a",
    ("bfloat16", "processors with a matrix unit"): "398039743776385240028c6f61932d484abaeaa99082283949f8f80ee363ecb7",
    (
        "bfloat16",
        "processors without a matrix unit",
    ): "5c40cba44f84bf402d0f3f23009e37cfef5a89722a71ae60710626f1c70ea957",
    ("int8", "every processor"): "c746044bf313a64e36df7a355a7369335eb41da4ba4ec0afca4d26a4e719a71b",
    ("int4", "every processor"): "1b5d28b411c3d137c9cd2672812db902a796096e95077eb2574fc21d45effb1c",
}
"""The SHA-256 of the logits after every token of prompts of LENGTHS tokens."""
QUICK = {
    "float32": "20502e5dd3880bed3abccb7528596a07e5c4db7564227a7801ddbb1c81310cf5",
    "int8": "ce66e025a7ae0592d486146562f82af076e1a22dd8c3efac0987bc5b13fd9413",
    "int4": "b98ec06897d40dce4e09c6ae8fa0f9fec10c9905bf33d4f9ab97500fabcdbc2b",
}
"""The SHA-256 of 24 texts of 12 tokens of ``tales``, and below of 200 texts of 30."""
NIGHTLY = {
    "float32": "f8a1e391f38cedf3831cc66be1c7beaa043d6bcaa34307c1727c6f68f2dcf650",
    "int8": "4a3ad220700fdd5054567bd30aa03467b4e4d787b021d12999f01a79e18da93a",
    "int4": "e69e32255518a76bf9240598d099c7dbda2fe310a8cd099e40cd95cbfece657d",
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
