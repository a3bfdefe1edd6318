"""int8 and int4: how far rounded weights are from the true ones, and what is kept exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2lab.weights.integers import BLOCK, GROUP, encode, padded

BOTH = pytest.mark.parametrize("precision", ["int8", "int4"])


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:
    """Random matrices of many sizes and magnitudes, some with an outlier or zeros."""
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 600)))
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    weights = rng.standard_normal(shape) * 10.0 ** draw(st.integers(-20, 30))
    weights[0, : draw(st.integers(0, shape[1]))] *= draw(st.sampled_from([0, 1, 1e-3]))
    weights[-1, draw(st.integers(0, shape[1] - 1))] *= draw(st.sampled_from([1, 1000]))
    return weights.astype(np.float32)


def errors(weights: np.ndarray, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """Return float64 blocks ``[n_out, n_blocks, 256]`` of the true weights, and of what rounding changed."""
    exact = padded(weights.astype(np.float64), BLOCK)
    return exact, padded(encode(weights, precision).decode().astype(np.float64), BLOCK) - exact


@given(matrices())
def test_int8_is_at_most_half_a_step_off(weights):
    exact, error = errors(weights, "int8")
    step = np.abs(exact).max(axis=-1, keepdims=True) / 127
    assert (np.abs(error) <= 0.502 * step).all()  # the scale has only 16 digits


@given(matrices())
def test_int4_is_no_farther_off_than_the_first_factors_that_it_tries(weights):
    """With the block's scale s = largest / 120, a group's step is at most extreme / 8 + s, and no weight is farther
    off than this step and the 4 s by which the extreme may lie outside."""
    exact, error = errors(weights, "int4")
    scale = np.abs(exact).max(axis=-1) / 120
    extreme = np.abs(exact.reshape(*scale.shape, -1, GROUP)).max(axis=-1)
    bound = (extreme / 8 + 5 * scale[..., None]) ** 2 * GROUP
    assert ((error**2).sum(axis=-1) <= 1.001 * bound.sum(axis=-1)).all()


@pytest.mark.parametrize(("precision", "least", "most"), [("int8", 0.004, 0.008), ("int4", 0.05, 0.09)])
def test_normal_weights_change_by_a_few_thousandths_or_hundredths(precision, least, most):
    exact, error = errors(np.random.default_rng(0).standard_normal((64, 1024)).astype(np.float32), precision)
    assert least < error.std() / exact.std() < most


@given(matrices())
def test_int8_keeps_what_it_has_rounded(weights):
    once = encode(weights, "int8")
    again = encode(once.decode(), "int8")
    np.testing.assert_array_equal(again.q, once.q)
    np.testing.assert_array_equal(again.scales, once.scales)


@BOTH
@given(matrices())
def test_decoding_is_exact(precision, weights):
    rounded = encode(weights, precision)
    scales = np.repeat(rounded.scales.astype(np.float64), BLOCK, axis=1)[:, : weights.shape[1]]
    np.testing.assert_array_equal(rounded.decode(), rounded.whole * scales)


@BOTH
@given(matrices())
def test_whole_numbers_are_in_range(precision, weights):
    rounded = encode(weights, precision)
    assert np.abs(rounded.whole).max() <= (127 if precision == "int8" else 120)
    if rounded.factors is not None:
        assert rounded.q.min() >= -8 and rounded.q.max() <= 7
        assert set(np.unique(np.abs(rounded.factors))) <= set(range(1, 16))


@BOTH
@given(matrices(), st.integers(0, 600))
def test_a_rows_rounding_depends_on_no_other_row(precision, weights, more):
    alone = encode(weights[:1], precision)
    among = encode(np.concatenate([np.ones((more, weights.shape[1]), np.float32), weights]), precision)
    np.testing.assert_array_equal(among.decode()[more], alone.decode()[0])


@BOTH
@pytest.mark.parametrize("value", [0.0, 1e-45, 9.9e-31])
def test_numbers_too_small_for_a_scale_are_zero(value, precision):
    rounded = encode(np.full((2, 300), value, np.float32), precision)
    assert not rounded.whole.any() and not rounded.scales.any()


@BOTH
@pytest.mark.parametrize("value", [1.0, -1.0, 3.4e38])
def test_equal_numbers_stay_equal(value, precision):
    decoded = encode(np.full((2, 300), value, np.float32), precision).decode()
    np.testing.assert_allclose(decoded, value, rtol=2e-5)  # the scale has only 16 digits
    assert len(np.unique(decoded)) == 1


@BOTH
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(bad, precision):
    weights = np.ones((2, 40), np.float32)
    weights[1, 3] = bad
    with pytest.raises(ValueError, match=f"{precision} is for finite values"):
        encode(weights, precision)
