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
    ("float32", "every processor"): "7524a96eaff9f3d648cd678656480bcce82f89ad7e516ecdf4fb8ead107cdde1",
    ("bfloat16", "processors with a matrix unit"): "13085806268d915f74e5cf9ae7ab48cccef6034de5fcf395e8dd1c85eb7c0d8a",
    (
        "bfloat16",
        "processors without a matrix unit",
    ): "2845a29bbe251e1ffe0d6ac9b5d04b1ff06eba4d96e964e56bfb62fc52118456",
    ("int8", "every processor"): "c4a24bc9e5a996b927e76f3bf16f9a2ae269057ce0f199a5bd68e19f12b55c02",
    ("int4", "every processor"): "ebc91535bcf2ccacf93c1b4a29a160096da3817698c2860846dbf4e8a1411604",
}
"""The SHA-256 of the logits after every token of prompts of LENGTHS tokens."""
QUICK = {
    "float32": "61a5e82a030afdd0e751f13ce4c5dd82c8fcd374b17103b56cfcd674bf1a0fae",
    "int8": "e0639ea626024fbf859e707cdd1e6100a2d82b07fa0d37969fa1f726f14d5b20",
    "int4": "c2cd0bfa0e785e8bec11d00b6c5a784217087e31142803068d11524cb13372a2",
}
"""The SHA-256 of 24 texts of 12 tokens of ``tales``, and below of 200 texts of 30."""
NIGHTLY = {
    "float32": "0dab02e900209939636d9424ce6fbd254059019699752a06857841c82916b894",
    "int8": "3287b994cf7dd8cfefeae727e889135e381d7fb0b372b20f29a890f8311d0587",
    "int4": "af33ae31bf139aa1e482e1e1a02dd4e4b20acb03e009983d92b2070ce5e48f85",
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
