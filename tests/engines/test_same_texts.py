"""A seed's texts are the same on every processor: each instruction set against committed hashes."""

from __future__ import annotations

import hashlib

import pytest

import gpt2lab
from gpt2lab import _native

QUICK = {
    "float32": "61a5e82a030afdd0e751f13ce4c5dd82c8fcd374b17103b56cfcd674bf1a0fae",
    "int8": "78f3dbab9d43ec2f7e565230511569d33beef1b993a49e8a754f419f1fd4f415",
    "int4": "15f411a68f381a9c28c7ffa4cbb8d3dcb7279b84c72e375d197b87cbd8da8fe1",
}
"""The SHA-256 of 24 texts of 12 tokens of ``tales``, and below of 200 texts of 30."""
NIGHTLY = {
    "float32": "0dab02e900209939636d9424ce6fbd254059019699752a06857841c82916b894",
    "int8": "c9094db36d62f57104b8bc6d83c9100ab2baeef3acb18f2376aef520b261d25f",
    "int4": "7ee669e9b4b30c63ca332be0a5f44a6d4ef3484a11c63f200fd57c43f1e1ec4b",
}


def texts_hash(monkeypatch: pytest.MonkeyPatch, isa: str, precision: str, n: int, length: int) -> str:
    monkeypatch.setenv("GPT2LAB_ISA", isa)
    model = gpt2lab.load("tales", precision=precision, threads=2)
    assert model.engine.instruction_set == isa
    completions = model.generate("Once upon a time", n=n, length=length, seed=1, top_k=40)
    return hashlib.sha256("\0".join(completion.text for completion in completions).encode()).hexdigest()


@pytest.mark.parametrize("isa", _native.instruction_sets())
@pytest.mark.parametrize("precision", QUICK)
def test_texts_of_tales(monkeypatch, precision, isa):
    assert texts_hash(monkeypatch, isa, precision, 24, 12) == QUICK[precision]


@pytest.mark.nightly
@pytest.mark.timeout(3600)  # without the instruction, and other programs beside it
@pytest.mark.parametrize("isa", _native.instruction_sets())
@pytest.mark.parametrize("precision", NIGHTLY)
def test_many_texts_of_tales(monkeypatch, precision, isa):
    assert texts_hash(monkeypatch, isa, precision, 200, 30) == NIGHTLY[precision]
