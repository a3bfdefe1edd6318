"""The core rounds matrices to int8 and int4 exactly as :mod:`gpt2lab.weights.integers` does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2lab import _native
from gpt2lab.weights.integers import BLOCK, GROUP, Integers, encode

TILE = 32
"""Outputs whose weights lie side by side; see native/weight_block.h for the layout of a block."""


def packed(weights: np.ndarray, precision: str) -> np.ndarray:
    """Return the bytes of ``weights [n_out, n_in]`` in the core, where the embedding matrix comes first."""
    n_out, n_in = weights.shape
    core = _native.Engine(
        n_vocab=n_out,
        n_ctx=1,
        n_embd=n_in,
        n_head=1,
        n_layer=1,
        threads=2,
        instruction_set="",
        precision=precision,
        kv_precision="float32",
    )
    core.set_tensor("wte.weight", weights)
    return np.array(core.packed)


def unpacked(data: np.ndarray, precision: str, n_out: int, n_in: int) -> Integers:
    """Read a matrix from the core's memory."""
    q, scales, factors = [], [], []
    for _ in range(0, n_out, TILE):
        blocks = []
        for first in range(0, n_in, BLOCK):
            depth = min(BLOCK, -(-(n_in - first) // 64) * 64)
            n_groups = depth // GROUP if precision == "int4" else 0
            sizes = (depth * TILE // (2 if n_groups else 1), n_groups * TILE, 4 * TILE)
            parts, data = np.split(data[: sum(sizes)], np.cumsum(sizes)[:-1]), data[sum(sizes) :]
            whole = nibbles(parts[0]) if n_groups else parts[0].view(np.int8).reshape(-1, TILE, 4).swapaxes(0, 1)
            blocks.append((whole.reshape(TILE, depth), parts[1].view(np.int8).reshape(-1, TILE).T, parts[2]))
        q.append(np.concatenate([block[0] for block in blocks], axis=1))
        factors.append(np.concatenate([block[1] for block in blocks], axis=1))
        scales.append(np.stack([block[2].view(np.float32) for block in blocks], axis=1))
    return Integers(
        np.concatenate(q)[:n_out, :n_in],
        np.concatenate(scales)[:n_out],
        np.concatenate(factors)[:n_out, : -(-n_in // GROUP)] if precision == "int4" else None,
    )


def nibbles(steps: np.ndarray) -> np.ndarray:
    """Return the weights of int4 steps ``[group, 4, TILE, 4]`` as ``[TILE, group, half, 4, 4]``."""
    steps = steps.reshape(-1, 4, TILE, 4)
    return np.stack([steps & 15, steps >> 4], axis=1).transpose(3, 0, 1, 2, 4).astype(np.int8) - 8


def check(weights: np.ndarray, precision: str) -> None:
    found, expected = unpacked(packed(weights, precision), precision, *weights.shape), encode(weights, precision)
    np.testing.assert_array_equal(found.q, expected.q)
    np.testing.assert_array_equal(found.scales, expected.scales)
    np.testing.assert_array_equal(found.factors, expected.factors)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_any_matrix_is_rounded_to_the_same_bits(precision, data):
    """Matrices of any size and magnitude, down to denormal numbers, with outliers, zeros and equal numbers."""
    n_out = data.draw(st.integers(1, 70))
    n_in = data.draw(st.one_of(st.integers(1, 70), st.integers(240, 270), st.integers(500, 600)))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    weights = rng.standard_normal((n_out, n_in)).astype(np.float32)
    weights *= np.float32(10.0 ** data.draw(st.integers(-44, 37)))
    first, last = sorted(data.draw(st.tuples(st.integers(0, n_in), st.integers(0, n_in))))
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    weights[:: data.draw(st.integers(1, 3)), first:last] = data.draw(st.one_of(st.just(0.0), finite))
    weights[data.draw(st.integers(0, n_out - 1)), data.draw(st.integers(0, n_in - 1))] = data.draw(finite)
    check(weights, precision)


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 1e-45, -1e-38, 9.9e-31, 1e-30, 3.4028235e38])
def test_equal_numbers_are_rounded_to_the_same_bits(value, precision):
    check(np.full((33, 257), value, np.float32), precision)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_large_matrix_is_rounded_to_the_same_bits(precision):
    check(np.random.default_rng(0).standard_t(3, (700, 1100)).astype(np.float32), precision)
