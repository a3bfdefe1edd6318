"""NaN and numbers that are too large, in activations and weights: every precision reports them and nothing crashes."""

from __future__ import annotations

import numpy as np
import pytest
from precision_cases import EVERY, ISAS, SHAPE, engines, make, random_checkpoint, run

from gpt2lab.engines.precision import PRECISIONS
from gpt2lab.errors import Gpt2LabError, SamplingError
from gpt2lab.sampling import SamplingParams
from gpt2lab.weights.checkpoint import Checkpoint


@EVERY
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_position_reaches_no_earlier_token_and_no_other_sequence(bad, isa, precision, kv_precision):
    checkpoint = random_checkpoint(SHAPE)
    clean = run(engines(isa, precision, kv_precision)[2], [[3] * 60])[0]
    checkpoint.tensors["wpe.weight"][40, 5] = bad
    engine = make(checkpoint, isa, precision, kv_precision, threads=2)
    for _ in range(2):  # the second time in memory with the first time's contents
        rows, other = run(engine, [[3] * 60, [3] * 20])
        np.testing.assert_array_equal(rows[:40], clean[:40])
        np.testing.assert_array_equal(other, clean[:20])
        assert np.isnan(rows[40:]).all()  # sampling and scoring report it


@EVERY
@pytest.mark.parametrize("tensor", ["wte.weight", "h.1.attn.c_proj.weight", "h.0.mlp.c_fc.bias", "ln_f.weight"])
def test_huge_and_tiny_numbers_crash_nothing(tensor, isa, precision, kv_precision):
    for value in (1e38, 1e-38, 1e-45):
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
        np.asarray(engine._core.packed)[:] = fill
        engine._core.mark_loaded()
        for prompts in ([[3]], [[1, 2, 3], [4]] + [[5]] * 20):
            run(engine, prompts)


def complaint(checkpoint: Checkpoint, precision: str) -> Gpt2LabError:
    """Return the error that loading raises or, if it succeeds, drawing a token."""
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
    checkpoint.tensors[tensor].flat[7] = bad  # for wte, in the row of the token that is fed
    error = complaint(checkpoint, precision)
    assert tensor in str(error) or isinstance(error, SamplingError)


@pytest.mark.parametrize("tensor", ["wte.weight", "h.1.attn.c_attn.weight"])
def test_weights_too_large_for_bfloat16_are_refused_by_name(tensor):
    checkpoint = random_checkpoint(SHAPE)
    checkpoint.tensors[tensor].flat[7] = 3.4e38
    assert tensor in str(complaint(checkpoint, "bfloat16"))
