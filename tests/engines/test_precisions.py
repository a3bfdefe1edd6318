"""Products, bfloat16 and the float16 cache of the native engine against :mod:`gpt2lab.contract`, which defines them.

bfloat16 without a matrix unit is float32 with rounded weights, to the bit. A matrix unit also rounds the inputs of
products, so there the logits are merely close.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from precision_cases import EVERY_PRODUCT, EXACT, ISAS, make, random_checkpoint, run

import needs
from gpt2lab import contract
from gpt2lab.config import ModelConfig
from gpt2lab.engines.precision import KV_PRECISIONS, PRECISIONS, weight_bytes
from gpt2lab.errors import UsageError
from gpt2lab.weights.checkpoint import Checkpoint

SHAPES = {
    "one head of 40": ModelConfig(n_vocab=77, n_ctx=64, n_embd=40, n_head=1, n_layer=1),
    "heads of 16, two layers": ModelConfig(n_vocab=101, n_ctx=64, n_embd=48, n_head=3, n_layer=2),
    "narrower than a block": ModelConfig(n_vocab=5, n_ctx=64, n_embd=8, n_head=1, n_layer=1),
    "whole tiles": ModelConfig(n_vocab=192, n_ctx=64, n_embd=64, n_head=1, n_layer=1),
}


def as_bfloat16(x: np.ndarray) -> np.ndarray:
    """Round float32 numbers to the nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)


def bfloat16_logits(checkpoint: Checkpoint, tokens: list[int], kv_precision: str = "float32") -> np.ndarray:
    """Return the contract's logits in float32 for matrices rounded to bfloat16."""
    weights = {
        name: as_bfloat16(tensor) if contract.is_matrix(name) else tensor for name, tensor in checkpoint.tensors.items()
    }
    return contract.forward(weights, checkpoint.config, tokens, kv_precision)


@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa != "amx"])
@pytest.mark.parametrize("kv_precision", KV_PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16_is_float32_with_rounded_weights(shape, kv_precision, isa):
    checkpoint = random_checkpoint(SHAPES[shape])
    tokens = np.random.default_rng(1).integers(0, SHAPES[shape].n_vocab, 40).tolist()
    (logits,) = run(make(checkpoint, isa, "bfloat16", kv_precision, threads=2), [tokens])
    np.testing.assert_array_equal(logits, bfloat16_logits(checkpoint, tokens, kv_precision))


@pytest.mark.parametrize("kv_precision", KV_PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16_on_a_matrix_unit_is_close(shape, kv_precision):
    needs.check("a CPU with AMX")
    checkpoint = random_checkpoint(SHAPES[shape])
    tokens = np.random.default_rng(1).integers(0, SHAPES[shape].n_vocab, 40).tolist()
    expected = bfloat16_logits(checkpoint, tokens, kv_precision)
    (logits,) = run(make(checkpoint, "amx", "bfloat16", kv_precision, threads=2), [tokens])
    assert np.abs(logits - expected).max() < 0.05 * expected.std()


# ---- a single product ------------------------------------------------------------------------------------------------


def head_alone(x: np.ndarray, n_vocab: int = 45) -> Checkpoint:
    """Make a model whose last layer norm returns exactly ``x`` for any input, so its logits are one product."""
    checkpoint = random_checkpoint(ModelConfig(n_vocab=n_vocab, n_ctx=64, n_embd=len(x), n_head=1, n_layer=1))
    checkpoint.tensors["ln_f.weight"][:] = 0
    checkpoint.tensors["ln_f.bias"][:] = x
    return checkpoint


def head_logits(checkpoint: Checkpoint, precision: str) -> np.ndarray:
    """Return the contract's logits ``[n_vocab]`` of a model made by :func:`head_alone`."""
    x = checkpoint.tensors["ln_f.bias"][None]
    matrix = contract.rounded("wte.weight", checkpoint.tensors["wte.weight"], precision)
    return contract.product(x, matrix, np.zeros(checkpoint.config.n_vocab, np.float32))[0]


def check_head(checkpoint: Checkpoint, isa: str, precision: str, *numbers_of_rows: int) -> None:
    engine, expected = make(checkpoint, isa, precision), head_logits(checkpoint, precision)
    for n in numbers_of_rows:
        np.testing.assert_array_equal(np.concatenate(run(engine, [[0]] * n)), np.tile(expected, (n, 1)))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("n_embd", [32, 40, 96, 256, 300])
def test_inputs_halfway_between_two_integers_are_rounded_to_even(n_embd, precision, isa):
    x = np.arange(n_embd) % 9 - 4.5
    x[::16] = 16319
    check_head(head_alone(x), isa, precision, 1, 3, 16, 39)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_sums_of_a_block_do_not_overflow(sign, precision, isa):
    """Every weight is 127 or, in int4, 8 · 15 steps of its scale, and every input 16319 steps, of either sign."""
    checkpoint = head_alone(np.full(512, 3.0))
    checkpoint.tensors["ln_f.bias"][256:] *= -1
    checkpoint.tensors["wte.weight"][:] = sign
    checkpoint.tensors["wte.weight"][20:] *= -1
    check_head(checkpoint, isa, precision, 1, 4, 20)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("precision", EXACT)
def test_any_inputs_give_the_product_of_the_contract(precision, data):
    """Outliers, zeros, whole blocks of them, tiny and huge numbers."""
    n = data.draw(st.one_of(st.integers(1, 80), st.integers(200, 600)))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    x = rng.standard_normal(n).astype(np.float32) * np.float32(10.0 ** data.draw(st.integers(-44, 30)))
    first, last = sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))
    x[first:last] = data.draw(st.one_of(st.just(0.0), st.floats(-(2.0**100), 2.0**100, width=32)))
    checkpoint = head_alone(x)
    for isa in ISAS:
        check_head(checkpoint, isa, precision, 1, 13)


@EVERY_PRODUCT
def test_a_product_of_zeros_is_zero(precision, isa):
    logits = np.concatenate(run(make(head_alone(np.zeros(70)), isa, precision), [[0]] * 3))
    assert not logits.any()


@pytest.mark.parametrize("n_embd", [1, 32, 33, 96, 130])
@pytest.mark.parametrize("n_rows", [1, 3, 16, 39])
def test_a_matrix_unit_rounds_inputs_to_the_even_one_of_two_bfloat16(n_rows, n_embd):
    needs.check("a CPU with AMX")
    x = (1 + (2 * np.arange(n_embd) + 1) / 256) * np.where(np.arange(n_embd) % 3, 1, -1)  # half-way
    checkpoint = head_alone(x)
    matrix = as_bfloat16(checkpoint.tensors["wte.weight"]).astype(np.float64)
    expected = matrix @ as_bfloat16(x)
    logits = np.concatenate(run(make(checkpoint, "amx", "bfloat16"), [[i] for i in range(n_rows)]))
    np.testing.assert_allclose(logits, np.tile(expected, (n_rows, 1)), rtol=0, atol=1e-6 * np.abs(expected).max())


# ---- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("precision", EXACT)
@pytest.mark.parametrize("part", [1, 2], ids=["keys", "values"])
def test_what_float16_cannot_hold_becomes_its_largest_number(part, precision, isa):
    checkpoint = random_checkpoint(SHAPES["one head of 40"])
    checkpoint.tensors["h.0.attn.c_attn.bias"][40 * part : 40 * part + 3] = [1e5, -1e5, 65519.0]
    prompt = [1, 2, 3]
    expected = contract.forward(checkpoint.tensors, checkpoint.config, prompt, "float16", precision)
    (logits,) = run(make(checkpoint, isa, precision, "float16"), [prompt])
    np.testing.assert_array_equal(logits, expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("precision", EXACT)
def test_int8_keys_and_values_reach_every_whole_number_and_zero(isa, precision):
    """Rows of zeros have the scale 0; others reach 127 in one of both signs."""
    checkpoint = random_checkpoint(SHAPES["one head of 40"])
    for part in (1, 2):
        columns = slice(40 * part, 40 * part + 40)
        checkpoint.tensors["h.0.attn.c_attn.weight"][:, columns] *= np.float32(1e-33 if part == 1 else 1e3)
        checkpoint.tensors["h.0.attn.c_attn.bias"][columns] = 0
    prompt = [1, 2, 3, 4]
    expected = contract.forward(checkpoint.tensors, checkpoint.config, prompt, "int8", precision)
    (logits,) = run(make(checkpoint, isa, precision, "int8"), [prompt])
    np.testing.assert_array_equal(logits, expected)


@pytest.mark.parametrize("precision", EXACT)
def test_a_cache_in_bfloat16_goes_only_with_such_weights(precision):
    with pytest.raises(UsageError, match="requires precision 'bfloat16'"):
        make(random_checkpoint(SHAPES["whole tiles"]), ISAS[0], precision, "bfloat16")


def test_a_cache_in_fewer_bits_takes_less_memory():
    checkpoint = random_checkpoint(SHAPES["whole tiles"])
    sizes = []
    for kv_precision in KV_PRECISIONS:
        engine = make(checkpoint, ISAS[0], "bfloat16", kv_precision)
        engine.forward([engine.new_sequence()], [[0]])
        sizes.append(engine.kv_cache_bytes)
    config, block = checkpoint.config, engine.kv_block_tokens
    scales = 4 * 2 * config.n_layer * config.n_head * block
    assert sizes == [sizes[0], sizes[0] // 2, sizes[0] // 2, sizes[0] // 4 + scales]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_take_the_stated_bytes_where_nothing_is_padded(precision):
    config = ModelConfig(n_vocab=96, n_ctx=2, n_embd=256, n_head=4, n_layer=1)
    assert make(random_checkpoint(config), ISAS[0], precision)._core.packed_size == weight_bytes(config, precision)
