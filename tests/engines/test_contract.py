"""float32 has the same bits on every processor: each instruction set against ``gpt2lab.contract``, its definition."""

from __future__ import annotations

import functools
import hashlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from formula import KERNELS_OUTPUT, LOGITS, TOKENS, WAYS, formula_checkpoint
from hypothesis import given
from hypothesis import strategies as st

from gpt2lab import _native, contract
from gpt2lab.engines.native import NativeEngine
from gpt2lab.engines.protocol import Draw
from gpt2lab.weights.checkpoint import Checkpoint
from gpt2lab.weights.openai import read_openai

GOLDEN = Path(__file__).parents[1] / "golden"
ISAS = _native.instruction_sets()
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def engine_of(
    checkpoint: Checkpoint, isa: str, kv_precision: str = "float32", precision: str = "float32"
) -> NativeEngine:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPT2LAB_ISA", isa)
        return NativeEngine(checkpoint, precision=precision, kv_precision=kv_precision, threads=2)


def logits_of(
    checkpoint: Checkpoint,
    isa: str,
    tokens: list[int],
    cut: int,
    kv_precision: str = "float32",
    precision: str = "float32",
):
    """Return the logits of ``tokens``: of the first ``cut`` in one call, of the others one by one."""
    engine = engine_of(checkpoint, isa, kv_precision, precision)
    sequence = engine.new_sequence()
    parts = [engine.forward([sequence], [tokens[:cut]], "all")]
    parts += [engine.forward([sequence], [[token]], "all") for token in tokens[cut:]]
    return np.concatenate(parts)


@pytest.fixture(scope="module")
def formula():
    checkpoint = formula_checkpoint()
    return checkpoint, contract.forward(checkpoint.tensors, checkpoint.config, TOKENS)


@functools.cache
def golden(name: str, kv_precision: str):
    """Return a checkpoint of the original's code, tokens, and the contract's logits."""
    checkpoint = read_openai(GOLDEN / name)
    tokens = np.load(GOLDEN / name / "golden.npz")["full_tokens"][0].tolist()[:20]
    weights = {name: np.asarray(tensor) for name, tensor in checkpoint.tensors.items()}
    return checkpoint, tokens, contract.forward(weights, checkpoint.config, tokens, kv_precision == "float16")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["tiny", "odd"])
@pytest.mark.parametrize("kv_precision", ["float32", "float16"])
def test_the_goldens_logits_are_the_contracts(name, isa, kv_precision):
    checkpoint, tokens, expected = golden(name, kv_precision)
    np.testing.assert_array_equal(logits_of(checkpoint, isa, tokens, len(tokens) // 2, kv_precision), expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("cut", [1, 37, 256, 257, 300])
def test_a_long_texts_logits_are_the_contracts_however_it_is_fed(formula, isa, cut):
    checkpoint, expected = formula
    np.testing.assert_array_equal(logits_of(checkpoint, isa, TOKENS, cut), expected)


def test_the_contracts_logits_have_not_changed(formula):
    _, logits = formula
    assert hashlib.sha256(logits.tobytes()).hexdigest() == LOGITS


@pytest.mark.parametrize("isa", ISAS)
def test_texts_are_the_same_on_every_processor(formula, isa):
    checkpoint, logits = formula
    engine = engine_of(checkpoint, isa)
    texts = []
    for stream, params in enumerate(WAYS):
        sequence, token = engine.new_sequence(), TOKENS[stream]
        for position in range(30):
            [[drawn]] = engine.step([sequence], [[token]], [Draw(params, 7, stream, position)])
            token = drawn.token
            texts.append(token)
    written = logits.tobytes() + np.array(texts, np.int32).tobytes()
    assert hashlib.sha256(written).hexdigest() == KERNELS_OUTPUT


@pytest.mark.parametrize("precision", ["bfloat16", "q8_0", "q4_0"])
def test_rounded_weights_give_the_same_logits_on_every_processor_without_amx(formula, precision):
    checkpoint, _ = formula
    found = {logits_of(checkpoint, isa, TOKENS[:40], 30, precision=precision).tobytes() for isa in ISAS if isa != "amx"}
    assert len(found) == 1


@given(floats, floats, floats)
def test_a_multiply_add_rounds_once(a, b, c):
    with np.errstate(over="ignore"):
        found = float(contract.fma(np.float32(a), np.float32(b), np.float32(c)))
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if np.isinf(found):
        assert abs(exact) >= Fraction(2**128 - 2**103)
        return
    below, above = (float(np.nextafter(np.float32(found), np.float32(way))) for way in (-np.inf, np.inf))
    distance = abs(exact - Fraction(found))
    for other in (below, above):
        if np.isfinite(other):
            assert distance <= abs(exact - Fraction(other))
