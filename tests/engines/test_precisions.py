"""The native engine in every precision and instruction set: what it computes, and that company never changes it."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantized import Model

from gpt2lab import _native
from gpt2lab.config import ModelConfig
from gpt2lab.engines.native import NativeEngine
from gpt2lab.errors import Gpt2LabError, SamplingError
from gpt2lab.sampling import SamplingParams
from gpt2lab.weights.checkpoint import Checkpoint, tensor_shapes

ISAS = _native.instruction_sets()
PRECISIONS = ("float32", "bfloat16", "q8_0", "q4_0")
KV_PRECISIONS = ("float32", "float16")
EVERY = pytest.mark.parametrize(
    ("isa", "precision", "kv_precision"), [(i, p, kv) for i in ISAS for p in PRECISIONS for kv in KV_PRECISIONS]
)
SHAPES = {
    "one head of 40": ModelConfig(n_vocab=77, n_ctx=64, n_embd=40, n_head=1, n_layer=1),
    "heads of 16, two layers": ModelConfig(n_vocab=101, n_ctx=64, n_embd=48, n_head=3, n_layer=2),
    "heads of 12, blocks cut short": ModelConfig(n_vocab=33, n_ctx=64, n_embd=72, n_head=6, n_layer=1),
    "narrower than a block": ModelConfig(n_vocab=5, n_ctx=64, n_embd=8, n_head=1, n_layer=1),
    "whole blocks": ModelConfig(n_vocab=192, n_ctx=64, n_embd=64, n_head=1, n_layer=1),
}


def random_checkpoint(config: ModelConfig, seed: int = 0) -> Checkpoint:
    rng = np.random.default_rng(seed)
    tensors = {
        name: (0.1 * rng.standard_normal(shape)).astype(np.float32) for name, shape in tensor_shapes(config).items()
    }
    return Checkpoint(config, tensors, None, "openai", "float32", Path("random"))


def make(checkpoint: Checkpoint, isa: str, precision: str, kv_precision: str = "float32", threads: int = 1):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPT2LAB_ISA", isa)
        return NativeEngine(checkpoint, precision=precision, kv_precision=kv_precision, threads=threads)


def run(engine: NativeEngine, prompts: list[list[int]]) -> list[np.ndarray]:
    """Logits of every token of every prompt, all fed in one call."""
    sequences = [engine.new_sequence() for _ in prompts]
    logits = engine.forward(sequences, prompts, "all")
    for sequence in sequences:
        engine.free_sequence(sequence)
    return np.split(logits, np.cumsum([len(prompt) for prompt in prompts])[:-1])


# ---- what is computed ------------------------------------------------------------------------------------------------


def short_prompts(n_vocab: int, n_rows: int) -> list[list[int]]:
    """Prompts of one to three tokens that make ``n_rows`` together."""
    rng = np.random.default_rng(n_rows)
    prompts: list[list[int]] = []
    while (room := n_rows - sum(map(len, prompts))) > 0:
        prompts.append(rng.integers(0, n_vocab, min(room, 1 + len(prompts) % 3)).tolist())
    return prompts


@EVERY
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_those_of_the_readable_model(shape, isa, precision, kv_precision):
    checkpoint = random_checkpoint(SHAPES[shape])
    model = Model(checkpoint, precision, kv_precision)
    engine = make(checkpoint, isa, precision, kv_precision, threads=2)
    n_certain = 0
    for n_rows in (1, 2, 5, 16, 17, 47):
        prompts = short_prompts(checkpoint.config.n_vocab, n_rows)
        for prompt, logits in zip(prompts, run(engine, prompts), strict=True):
            expected = model.forward(prompt)
            error = np.abs(logits - expected) / expected.std()
            assert error[model.certain].max(initial=0) < 2e-5
            assert error.mean() < 2e-2  # a rounding that went the other way
            n_certain += int(model.certain.sum())
    assert n_certain >= 20


@EVERY
def test_a_long_prompt_stays_close_to_the_readable_model(isa, precision, kv_precision):
    checkpoint = random_checkpoint(SHAPES["heads of 16, two layers"])
    prompt = np.random.default_rng(1).integers(0, 101, 64).tolist()
    expected = Model(checkpoint, precision, kv_precision).forward(prompt)
    exact = Model(checkpoint, "float32").forward(prompt)
    (logits,) = run(make(checkpoint, isa, precision, kv_precision, threads=2), [prompt])
    assert np.abs(logits - expected).mean() <= max(1e-6, 0.5 * np.abs(exact - expected).mean())


def head_alone(x: list[float], n_vocab: int = 45) -> Checkpoint:
    """A model whose last layer norm gives exactly ``x`` whatever it is fed, so that its logits are one product."""
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


@pytest.mark.parametrize("precision", ["q8_0", "q4_0"])
def test_instruction_sets_give_the_same_bits_where_nothing_but_a_product_differs(precision):
    x = np.random.default_rng(3).standard_normal(800).tolist()
    checkpoint = head_alone(x, n_vocab=77)
    expected = Model(checkpoint, precision).forward([0])
    fused = []
    for isa in ISAS:
        logits = np.concatenate(run(make(checkpoint, isa, precision), [[0]] * 21))
        np.testing.assert_allclose(logits, np.repeat(expected, 21, 0), rtol=0, atol=1e-6 * np.abs(expected).max())
        if isa != "baseline":  # which may have no fused multiply-add
            fused.append(logits)
    for logits in fused:
        np.testing.assert_array_equal(logits, fused[0])


@given(data=st.data())
@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("precision", ["q8_0", "q4_0"])
def test_any_activations_give_the_same_product_everywhere(precision, data):
    """Outliers, zeros, whole blocks of them, tiny and huge values."""
    value = st.one_of(st.just(0.0), st.floats(-(2.0**100), 2.0**100, width=32), st.floats(-8, 8, width=32))
    x = data.draw(st.lists(value, min_size=1, max_size=70))
    checkpoint = head_alone(x)
    model = Model(checkpoint, precision)
    expected = model.forward([0])
    for isa in ISAS:
        (logits,) = run(make(checkpoint, isa, precision), [[0]])
        tolerance = 1e-5 * np.abs(expected).max() + 1e-30
        np.testing.assert_allclose(logits, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("precision", ["q8_0", "q4_0"])
def test_the_largest_sums_of_a_block_do_not_overflow(precision, isa):
    """Every weight and every activation at its limit, of either sign: 32 * 128 * 127 and offsets on top."""
    for sign in (1.0, -1.0):
        checkpoint = head_alone([127.0] * 64)
        checkpoint.tensors["wte.weight"][:] = sign
        checkpoint.tensors["wte.weight"][::2] *= -1
        expected = Model(checkpoint, precision).forward([0])
        for n_rows in (1, 20):
            logits = np.concatenate(run(make(checkpoint, isa, precision), [[0]] * n_rows))
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


# ---- a row depends on its sequence alone, bit for bit ----------------------------------------------------------------

SHAPE = ModelConfig(n_vocab=77, n_ctx=100, n_embd=72, n_head=3, n_layer=2)


@functools.cache
def engines(isa: str, precision: str, kv_precision: str) -> dict[int, NativeEngine]:
    checkpoint = random_checkpoint(SHAPE)
    return {threads: make(checkpoint, isa, precision, kv_precision, threads) for threads in (1, 2, 3)}


def one_by_one(engine: NativeEngine, prompt: list[int]) -> np.ndarray:
    """Logits of every token, each fed by itself."""
    sequence = engine.new_sequence()
    rows = [engine.forward([sequence], [[token]]) for token in prompt]
    engine.free_sequence(sequence)
    return np.concatenate(rows)


@EVERY
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_neighbours_chunks_and_threads_change_nothing(isa, precision, kv_precision, data):
    made = engines(isa, precision, kv_precision)
    n_prompts = data.draw(st.one_of(st.integers(1, 4), st.integers(1, 40)))
    length = st.integers(1, 90 if n_prompts < 5 else 9)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    prompts = [rng.integers(0, SHAPE.n_vocab, data.draw(length)).tolist() for _ in range(n_prompts)]
    engine = made[data.draw(st.sampled_from([1, 2, 3]))]
    sequences = [engine.new_sequence() for _ in prompts]
    rows: list[list[np.ndarray]] = [[] for _ in prompts]
    while unfinished := [i for i, prompt in enumerate(prompts) if len(rows[i]) < len(prompt)]:
        fed = {}
        for i in unfinished:
            rest = prompts[i][len(rows[i]) :]
            fed[i] = rest[: data.draw(st.integers(1, len(rest)))]
        logits = engine.forward([sequences[i] for i in fed], list(fed.values()), "all")
        for i, part in zip(fed, np.split(logits, np.cumsum([len(ids) for ids in fed.values()])[:-1]), strict=True):
            rows[i].extend(part)
    for sequence in sequences:
        engine.free_sequence(sequence)
    for prompt, got in zip(prompts, rows, strict=True):
        np.testing.assert_array_equal(got, one_by_one(made[1], prompt))


@EVERY
def test_every_number_of_rows_gives_the_same_row(isa, precision, kv_precision):
    engine = engines(isa, precision, kv_precision)[2]
    alone = one_by_one(engine, [5])[0]
    for n_rows in [*range(2, 36), 47, 48, 49, 63, 64, 65]:
        prompts = [[5]] + [[i % SHAPE.n_vocab] for i in range(n_rows - 1)]
        np.testing.assert_array_equal(run(engine, prompts)[0][0], alone)


@EVERY
@given(shared=st.integers(1, 40), grown=st.lists(st.integers(0, 76), min_size=1, max_size=40), keep=st.integers(0, 80))
@settings(max_examples=3, deadline=None)
def test_forks_and_truncation_change_nothing(isa, precision, kv_precision, shared, grown, keep):
    engine = engines(isa, precision, kv_precision)[2]
    prompt = [i % 70 for i in range(shared)]
    sequence = engine.new_sequence()
    engine.forward([sequence], [prompt], "none")
    fork = engine.fork_sequence(sequence)
    engine.forward([sequence], [[1] * 20], "none")
    logits = engine.forward([fork], [grown], "all")
    np.testing.assert_array_equal(logits, one_by_one(engine, prompt + grown)[shared:])
    keep = min(keep, shared + len(grown))
    engine.truncate_sequence(fork, keep)
    engine.free_sequence(sequence)
    logits = engine.forward([fork], [[7, 8, 9]], "all")
    np.testing.assert_array_equal(logits, one_by_one(engine, [*(prompt + grown)[:keep], 7, 8, 9])[keep:])
    engine.free_sequence(fork)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_wide_products_do_not_depend_on_the_number_of_rows(precision, isa):
    config = ModelConfig(n_vocab=50, n_ctx=40, n_embd=800, n_head=10, n_layer=1)
    engine = make(random_checkpoint(config), isa, precision, threads=2)
    tokens = list(range(40))
    np.testing.assert_array_equal(run(engine, [tokens])[0], one_by_one(engine, tokens))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_more_rows_than_one_pass_holds(precision, isa):
    config = ModelConfig(n_vocab=40, n_ctx=1300, n_embd=40, n_head=2, n_layer=1)
    engine = make(random_checkpoint(config), isa, precision, threads=2)
    tokens = [i % 40 for i in range(1300)]
    (whole,) = run(engine, [tokens])
    sequence = engine.new_sequence()
    parts = [engine.forward([sequence], [tokens[i : i + 130]], "all") for i in range(0, 1300, 130)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


# ---- numbers that are none -------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_position_reaches_no_earlier_token_and_no_other_sequence(bad, isa, precision, kv_precision):
    checkpoint = random_checkpoint(SHAPE)
    clean = run(engines(isa, precision, kv_precision)[2], [[3] * 60])[0]
    checkpoint.tensors["wpe.weight"][40, 5] = bad
    engine = make(checkpoint, isa, precision, kv_precision, threads=2)
    for _ in range(2):  # the second time in memory that holds what the first left behind
        rows, other = run(engine, [[3] * 60, [3] * 20])
        np.testing.assert_array_equal(rows[:40], clean[:40])
        np.testing.assert_array_equal(other, clean[:20])
        assert np.isnan(rows[40:]).all()  # which sampling and scoring report


@EVERY
@pytest.mark.parametrize("tensor", ["wte.weight", "h.1.attn.c_proj.weight", "h.0.mlp.c_fc.bias", "ln_f.weight"])
def test_huge_and_tiny_numbers_crash_nothing(tensor, isa, precision, kv_precision):
    largest = {"q8_0": 8e6, "q4_0": 5e5}.get(precision, 1e38) if tensor.endswith("weight") else 1e38
    for value in (largest, 1e-38, 1e-45):
        checkpoint = random_checkpoint(SHAPE)
        checkpoint.tensors[tensor][...] = value
        checkpoint.tensors[tensor][0] *= -1
        engine = make(checkpoint, isa, precision, kv_precision, threads=1)
        rows = run(engine, [[3, 4, 5], [6]])
        assert all(row.shape[1] == SHAPE.n_vocab for row in rows)


@EVERY
def test_any_bytes_for_weights_crash_nothing(isa, precision, kv_precision):
    engine = make(random_checkpoint(SHAPE), isa, precision, kv_precision, threads=2)
    rng = np.random.default_rng(0)
    for fill in (rng.integers(0, 256, engine._core.packed_size), 0xFF, 0x80):
        engine._core.packed[:] = fill
        engine._core.mark_loaded()
        for prompts in ([[3]], [[1, 2, 3], [4]] + [[5]] * 20):
            run(engine, prompts)


def complaint(checkpoint: Checkpoint, precision: str) -> Gpt2LabError:
    """What loading raises, or else drawing a token."""
    with pytest.raises(Gpt2LabError) as raised:
        engine = make(checkpoint, ISAS[0], precision)
        logits = run(engine, [[0]])[0]
        engine.sample(logits, [SamplingParams()], [0], [0], [0], [()])
    assert "\n" not in str(raised.value)
    return raised.value


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("tensor", ["wte.weight", "h.1.attn.c_attn.weight", "h.0.mlp.c_proj.weight", "h.0.ln_1.bias"])
def test_nobody_gets_text_out_of_weights_that_are_no_numbers(tensor, bad, precision):
    checkpoint = random_checkpoint(SHAPE)
    checkpoint.tensors[tensor].flat[7] = bad  # in the row of wte of the token that is fed
    error = complaint(checkpoint, precision)
    assert tensor in str(error) or isinstance(error, SamplingError)


@pytest.mark.parametrize(("precision", "bad"), [("bfloat16", 3.4e38), ("q8_0", 8.4e6), ("q4_0", -5.3e5)])
@pytest.mark.parametrize("tensor", ["wte.weight", "h.1.attn.c_attn.weight"])
def test_weights_too_large_for_a_precision_are_refused_by_name(tensor, precision, bad):
    checkpoint = random_checkpoint(SHAPE)
    checkpoint.tensors[tensor].flat[7] = bad
    assert tensor in str(complaint(checkpoint, precision))
