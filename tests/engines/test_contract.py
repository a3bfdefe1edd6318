"""float32, int8 and int4 have the same bits on every processor.

Each instruction set is compared with ``gpt2lab.contract``, their definition, and that with committed hashes.
"""

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
from precision_cases import EXACT, EXACT_KV, ISAS, make, random_checkpoint

from gpt2lab import contract
from gpt2lab.config import ModelConfig
from gpt2lab.engines.precision import default_kv_precision
from gpt2lab.engines.protocol import Draw
from gpt2lab.weights.checkpoint import Checkpoint
from gpt2lab.weights.openai import read_openai

GOLDEN = Path(__file__).parents[1] / "golden"
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def logits_of(checkpoint: Checkpoint, isa: str, tokens: list[int], cut: int, precision: str, kv_precision: str):
    """Return the logits of ``tokens``: of the first ``cut`` in one call, of the others one by one."""
    engine = make(checkpoint, isa, precision, kv_precision, threads=2)
    sequence = engine.new_sequence()
    parts = [engine.forward([sequence], [tokens[:cut]], "all")]
    parts += [engine.forward([sequence], [[token]], "all") for token in tokens[cut:]]
    return np.concatenate(parts)


@functools.cache
def golden(name: str, precision: str, kv_precision: str):
    """Return a checkpoint of the original's code, tokens, and the contract's logits."""
    checkpoint = read_openai(GOLDEN / name)
    tokens = np.load(GOLDEN / name / "golden.npz")["full_tokens"][0].tolist()[:20]
    weights = {name: np.asarray(tensor) for name, tensor in checkpoint.tensors.items()}
    return checkpoint, tokens, contract.forward(weights, checkpoint.config, tokens, kv_precision, precision)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["tiny", "odd"])
@pytest.mark.parametrize("precision", EXACT)
@pytest.mark.parametrize("kv_precision", EXACT_KV)
def test_the_goldens_logits_are_the_contracts(kv_precision, precision, name, isa):
    checkpoint, tokens, expected = golden(name, precision, kv_precision)
    logits = logits_of(checkpoint, isa, tokens, len(tokens) // 2, precision, kv_precision)
    np.testing.assert_array_equal(logits, expected)


@functools.cache
def formula(precision: str, kv_precision: str):
    checkpoint = formula_checkpoint()
    return checkpoint, contract.forward(checkpoint.tensors, checkpoint.config, TOKENS, kv_precision, precision)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("precision", EXACT)
@pytest.mark.parametrize("kv_precision", ["float32", "int8"])
@pytest.mark.parametrize("cut", [1, 37, 256, 257, 300])
def test_a_long_texts_logits_are_the_contracts_however_it_is_fed(cut, kv_precision, precision, isa):
    checkpoint, expected = formula(precision, kv_precision)
    np.testing.assert_array_equal(logits_of(checkpoint, isa, TOKENS, cut, precision, kv_precision), expected)


@functools.cache
def wide(n_head: int, precision: str, kv_precision: str):
    """Return a model of several blocks of 256 inputs, the last one short, 20 tokens, and the contract's logits.

    With one head, its queries have several blocks, too.
    """
    checkpoint = random_checkpoint(ModelConfig(n_vocab=90, n_ctx=20, n_embd=320, n_head=n_head, n_layer=1))
    tokens = [(7 * i * i + 3 * i) % 90 for i in range(20)]
    return checkpoint, tokens, contract.forward(checkpoint.tensors, checkpoint.config, tokens, kv_precision, precision)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("precision", EXACT)
@pytest.mark.parametrize("kv_precision", EXACT_KV)
@pytest.mark.parametrize("n_head", [1, 5])
@pytest.mark.parametrize("cut", [1, 4, 20])
def test_a_wide_models_logits_are_the_contracts_however_it_is_fed(cut, n_head, kv_precision, precision, isa):
    checkpoint, tokens, expected = wide(n_head, precision, kv_precision)
    np.testing.assert_array_equal(logits_of(checkpoint, isa, tokens, cut, precision, kv_precision), expected)


@pytest.mark.parametrize("precision", EXACT)
def test_the_contracts_logits_have_not_changed(precision):
    _, logits = formula(precision, default_kv_precision(precision))
    assert hashlib.sha256(logits.tobytes()).hexdigest() == LOGITS[precision]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("precision", EXACT)
def test_texts_are_the_same_on_every_processor(precision, isa):
    checkpoint, logits = formula(precision, default_kv_precision(precision))
    engine = make(checkpoint, isa, precision, None, threads=2)
    texts = []
    for stream, params in enumerate(WAYS):
        sequence, token = engine.new_sequence(), TOKENS[stream]
        for position in range(30):
            [[drawn]] = engine.step([sequence], [[token]], [Draw(params, 7, stream, position)])
            token = drawn.token
            texts.append(token)
    written = logits.tobytes() + np.array(texts, np.int32).tobytes()
    assert hashlib.sha256(written).hexdigest() == KERNELS_OUTPUT[precision]


@pytest.mark.parametrize("fused", [False, True])
def test_exponentials_are_right_to_about_two_units_in_the_last_place(fused):
    x = np.linspace(-87.3, 0, 100_001, dtype=np.float32)
    power = np.exp2(x.astype(np.float64))
    np.testing.assert_allclose(contract.power_of_negative(x, fused=fused), power, rtol=2.7e-7)
    np.testing.assert_allclose(contract.exp(-x), np.exp(-x.astype(np.float64)), rtol=2.7e-7)
    np.testing.assert_allclose(contract.exp(x), np.exp(x.astype(np.float64)), rtol=2.7e-7)


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
