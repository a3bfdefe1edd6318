"""The native engine agrees with the readable model in every precision and instruction set.

Tokens may be given or drawn, which a matrix unit computes in two ways.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st
from precision_cases import EVERY, EVERY_WAY, ISAS, make, random_checkpoint, run, step
from quantized import Model, bfloat16_ways

import needs
from gpt2lab.config import ModelConfig
from gpt2lab.engines.precision import KV_PRECISIONS, PRECISIONS
from gpt2lab.weights.checkpoint import Checkpoint

SHAPES = {
    "one head of 40": ModelConfig(n_vocab=77, n_ctx=64, n_embd=40, n_head=1, n_layer=1),
    "heads of 16, two layers": ModelConfig(n_vocab=101, n_ctx=64, n_embd=48, n_head=3, n_layer=2),
    "heads of 12, blocks cut short": ModelConfig(n_vocab=33, n_ctx=64, n_embd=72, n_head=6, n_layer=1),
    "narrower than a block": ModelConfig(n_vocab=5, n_ctx=64, n_embd=8, n_head=1, n_layer=1),
    "whole blocks": ModelConfig(n_vocab=192, n_ctx=64, n_embd=64, n_head=1, n_layer=1),
}


def short_prompts(n_vocab: int, n_rows: int) -> list[list[int]]:
    """Return prompts of one to three tokens with ``n_rows`` tokens in total."""
    rng = np.random.default_rng(n_rows)
    prompts: list[list[int]] = []
    while (room := n_rows - sum(map(len, prompts))) > 0:
        prompts.append(rng.integers(0, n_vocab, min(room, 1 + len(prompts) % 3)).tolist())
    return prompts


@functools.cache
def _model(shape: str, precision: str, kv_precision: str, isa: str) -> Model:
    return Model(random_checkpoint(SHAPES[shape]), precision, kv_precision, isa)


@functools.cache
def _computed(
    shape: str, precision: str, kv_precision: str, isa: str, tokens: tuple[int, ...], given: int
) -> tuple[np.ndarray, np.ndarray]:
    model = _model(shape, precision, kv_precision, isa)
    logits = model.forward(tokens, given)
    return logits, model.certain


def readable(
    shape: str, precision: str, kv_precision: str, isa: str, tokens: list[int], given: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the readable model's logits ``[n_seq, n_vocab]``, and which rows no close call has affected.

    Computed once for all instruction sets that round alike.
    """
    alike = isa if any(bfloat16_ways(isa, precision)) else "any"
    return _computed(shape, precision, kv_precision, alike, tuple(tokens), given)


@EVERY_WAY
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_those_of_the_readable_model(shape, isa, precision, kv_precision, given):
    engine = make(random_checkpoint(SHAPES[shape]), isa, precision, kv_precision, threads=2)
    n_certain = 0
    for n_rows in (1, 2, 5, 16, 17, 47):
        prompts = short_prompts(SHAPES[shape].n_vocab, n_rows)
        for prompt, logits in zip(prompts, run(engine, prompts, given=given), strict=True):
            n_given = len(prompt) if given else 0
            expected, certain = readable(shape, precision, kv_precision, isa, prompt, n_given)
            error = np.abs(logits - expected) / expected.std()
            assert error[certain].max(initial=0) < 2e-5
            assert error.mean() < 2e-2  # close calls may round the other way
            n_certain += int(certain.sum())
    assert n_certain >= 20


@EVERY_WAY
def test_a_long_prompt_stays_close_to_the_readable_model(isa, precision, kv_precision, given):
    shape = "heads of 16, two layers"
    prompt = np.random.default_rng(1).integers(0, 101, 64).tolist()
    expected, _ = readable(shape, precision, kv_precision, isa, prompt, 64 if given else 0)
    exact, _ = readable(shape, "float32", "float32", "any", prompt)
    engine = make(random_checkpoint(SHAPES[shape]), isa, precision, kv_precision, threads=2)
    (logits,) = run(engine, [prompt], given=given)
    assert np.abs(logits - expected).mean() <= max(1e-6, 0.5 * np.abs(exact - expected).mean())


@EVERY
def test_a_prompt_and_what_was_drawn_behind_it_are_those_of_the_readable_model(isa, precision, kv_precision):
    shape = "one head of 40"
    engine = make(random_checkpoint(SHAPES[shape]), isa, precision, kv_precision, threads=2)
    rng = np.random.default_rng(2)
    n_certain = 0
    for n_tokens in range(1, 9):
        for n_given in range(n_tokens + 1):
            tokens = rng.integers(0, 77, n_tokens).tolist()
            expected, certain = readable(shape, precision, kv_precision, isa, tokens, n_given)
            (got,) = step(engine, [engine.new_sequence()], [tokens], [n_given])
            error = np.abs(got - log_softmax(expected[-1])).max() / expected.std()
            assert error < (3e-5 if certain[-1] else 0.2)
            n_certain += int(certain[-1])
    assert n_certain >= 5


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.logaddexp.reduce(logits)


def head_alone(x: list[float], n_vocab: int = 45) -> Checkpoint:
    """Make a model whose last layer norm returns exactly ``x`` for any input, so its logits are one product."""
    checkpoint = random_checkpoint(ModelConfig(n_vocab=n_vocab, n_ctx=64, n_embd=len(x), n_head=1, n_layer=1))
    checkpoint.tensors["ln_f.weight"][:] = 0
    checkpoint.tensors["ln_f.bias"][:] = x
    return checkpoint


def close_calls(n: int) -> list[float]:
    """Activations half-way between two integers, once the block's largest is 127."""
    halves = np.arange(n) % 9 - 4.5
    halves[::16] = 127
    return halves.tolist()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("precision", ["q8_0", "q4_0"])
@pytest.mark.parametrize("n_embd", [32, 40, 96, 130])
@pytest.mark.parametrize("n_rows", [1, 3, 16, 39])
def test_halves_are_rounded_to_even(n_rows, n_embd, precision, isa):
    checkpoint = head_alone(close_calls(n_embd))
    expected = Model(checkpoint, precision).forward([0])
    logits = np.concatenate(run(make(checkpoint, isa, precision), [[i] for i in range(n_rows)]))
    np.testing.assert_allclose(logits, np.repeat(expected, n_rows, 0), rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("precision", ["bfloat16", "q8_0", "q4_0"])
@pytest.mark.parametrize("n_embd", [1, 32, 33, 96, 130])
@pytest.mark.parametrize("n_rows", [1, 3, 16, 39])
def test_a_matrix_unit_rounds_prompts_to_the_even_one_of_two_bfloat16(n_rows, n_embd, precision):
    needs.check("a CPU with AMX")
    x = (1 + (2 * np.arange(n_embd) + 1) / 256) * np.where(np.arange(n_embd) % 3, 1, -1)  # half-way
    checkpoint = head_alone(x.tolist())
    expected = Model(checkpoint, precision, isa="amx").forward([0], given=1)
    engine = make(checkpoint, "amx", precision)
    logits = np.concatenate(run(engine, [[i] for i in range(n_rows)], given=True))
    np.testing.assert_allclose(logits, np.repeat(expected, n_rows, 0), rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa != "amx"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_without_a_matrix_unit_a_prompt_is_computed_as_what_is_drawn(precision, isa):
    engine = make(random_checkpoint(SHAPES["whole blocks"]), isa, precision)
    prompts = [[1, 2, 3], [4], *[[5, 6]] * 9]
    for given, drawn in zip(run(engine, prompts, given=True), run(engine, prompts), strict=True):
        np.testing.assert_array_equal(given, drawn)


@pytest.mark.parametrize("precision", ["q8_0", "q4_0"])
def test_instruction_sets_give_the_same_bits_where_nothing_but_a_product_differs(precision):
    x = np.random.default_rng(3).standard_normal(800).tolist()
    checkpoint = head_alone(x, n_vocab=77)
    expected = Model(checkpoint, precision).forward([0])
    fused = []
    for isa in ISAS:
        logits = np.concatenate(run(make(checkpoint, isa, precision), [[0]] * 21))
        np.testing.assert_allclose(logits, np.repeat(expected, 21, 0), rtol=0, atol=1e-6 * np.abs(expected).max())
        if isa != "baseline":  # the baseline may lack a fused multiply-add
            fused.append(logits)
    for logits in fused:
        np.testing.assert_array_equal(logits, fused[0])


@examples(data=st.data())
@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("precision", ["bfloat16", "q8_0", "q4_0"])
def test_any_activations_give_the_product_of_the_readable_model(precision, given, data):
    """Outliers, zeros, whole blocks of them, tiny and huge values."""
    value = st.one_of(st.just(0.0), st.floats(-(2.0**100), 2.0**100, width=32), st.floats(-8, 8, width=32))
    x = data.draw(st.lists(value, min_size=1, max_size=70))
    checkpoint = head_alone(x)
    for isa in ISAS:
        expected = Model(checkpoint, precision, isa=isa).forward([0], int(given))
        (logits,) = run(make(checkpoint, isa, precision), [[0]], given=given)
        tolerance = 1e-5 * np.abs(expected).max() + 1e-30
        np.testing.assert_allclose(logits, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("precision", ["q8_0", "q4_0"])
def test_the_largest_sums_of_a_block_do_not_overflow(precision, isa, given):
    """Every weight and activation is at its limit, of either sign: sums reach 32 * 128 * 127, plus offsets."""
    for sign in (1.0, -1.0):
        checkpoint = head_alone([127.0] * 64)
        checkpoint.tensors["wte.weight"][:] = sign
        checkpoint.tensors["wte.weight"][::2] *= -1
        expected = Model(checkpoint, precision, isa=isa).forward([0], int(given))
        for n_rows in (1, 20):
            logits = np.concatenate(run(make(checkpoint, isa, precision), [[0]] * n_rows, given=given))
            np.testing.assert_allclose(logits, np.repeat(expected, n_rows, 0), rtol=1e-6)


@pytest.mark.parametrize("isa", ISAS)
def test_a_float16_cache_is_float16_and_not_another_format(isa):
    checkpoint = random_checkpoint(SHAPES["heads of 16, two layers"])
    prompt = list(range(50))
    exact, rounded = (Model(checkpoint, "float32", kv).forward(prompt) for kv in KV_PRECISIONS)
    (logits,) = run(make(checkpoint, isa, "float32", "float16"), [prompt])
    assert np.abs(logits - rounded).mean() < 0.2 * np.abs(exact - rounded).mean()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("part", [1, 2], ids=["keys", "values"])
def test_what_float16_cannot_hold_becomes_its_largest_number(part, isa):
    checkpoint = random_checkpoint(SHAPES["one head of 40"])
    checkpoint.tensors["h.0.attn.c_attn.bias"][40 * part : 40 * part + 3] = [1e5, -1e5, 65519.0]
    prompt = [1, 2, 3]
    expected = Model(checkpoint, "float32", "float16").forward(prompt)
    (logits,) = run(make(checkpoint, isa, "float32", "float16"), [prompt])
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_a_float16_cache_takes_half_the_memory():
    checkpoint = random_checkpoint(SHAPES["whole blocks"])
    sizes = []
    for kv_precision in KV_PRECISIONS:
        engine = make(checkpoint, ISAS[0], "float32", kv_precision)
        engine.forward([engine.new_sequence()], [[0]])
        sizes.append(engine.kv_cache_bytes)
    assert sizes[0] == 2 * sizes[1]
