import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import needs
from gpt2lab.weights.precisions import GGML_TYPES, PRECISIONS
from gpt2lab.weights.quantization import decode, decode_transposed, encode

NUMBERS = arrays(np.float32, (3, 64), elements=st.floats(-1000, 1000, width=32, allow_subnormal=False))
GGUF_TYPES = {"float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0", "q4_0": "Q4_0"}


@pytest.mark.parametrize("name", GGUF_TYPES)
@given(values=NUMBERS)
def test_bits_are_those_of_the_gguf_package(name, values):
    quants = needs.package("gguf.quants")
    kind = needs.package("gguf").GGMLQuantizationType[GGUF_TYPES[name]]
    values[np.abs(values) < 1e-4] = 0
    theirs = quants.quantize(values, kind)
    ours = encode(values, PRECISIONS[name])
    assert ours.tobytes() == theirs.tobytes()
    np.testing.assert_array_equal(decode(ours, PRECISIONS[name], values.shape), quants.dequantize(theirs, kind))


@pytest.mark.parametrize("name", PRECISIONS)
def test_decoding_transposed_is_decoding_and_transposing(name):
    values = np.random.default_rng(0).standard_normal((5, 96), dtype=np.float32)
    stored = encode(values, PRECISIONS[name])
    transposed = decode_transposed(stored, PRECISIONS[name], 5, 96)
    assert transposed.flags.c_contiguous
    np.testing.assert_array_equal(transposed, decode(stored, PRECISIONS[name], (5, 96)).T)


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_unblocked_precisions_take_any_width(name):
    values = np.arange(35, dtype=np.float32).reshape(5, 7)
    stored = encode(values, PRECISIONS[name])
    np.testing.assert_array_equal(decode(stored, PRECISIONS[name], (5, 7)), values)
    np.testing.assert_array_equal(decode_transposed(stored, PRECISIONS[name], 5, 7), values.T)


@given(values=NUMBERS)
def test_error_of_a_block_is_bounded_by_its_step(values):
    largest = np.abs(values.reshape(-1, 32)).max(axis=1, keepdims=True)
    for name, steps in (("q8_0", 127), ("q4_0", 8)):
        error = decode(encode(values, PRECISIONS[name]), PRECISIONS[name], (6, 32)) - values.reshape(-1, 32)
        # half a step (a whole one for q4_0, whose positive end is clipped) and float16's rounding of the scale
        bound = largest / steps * (0.5 if name == "q8_0" else 1) + largest * 2**-10 + 1e-4
        assert (np.abs(error) <= bound).all()


@pytest.mark.parametrize("name", ["float16", "bfloat16", "q8_0", "q4_0"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 3.4e38])
def test_what_a_precision_cannot_hold_is_refused(name, value):
    with pytest.raises(ValueError, match=name):
        encode(np.full(32, value, np.float32), PRECISIONS[name])


@pytest.mark.parametrize("name", ["q8_0", "q4_0"])
def test_blocks_of_zeros_and_of_subnormals_become_zeros(name):
    values = np.array([0.0] * 32 + [1e-42] * 32, dtype=np.float32)
    np.testing.assert_array_equal(decode(encode(values, PRECISIONS[name]), PRECISIONS[name], (64,)), 0)


@pytest.mark.parametrize("precision", {**PRECISIONS, **{each.name: each for each in GGML_TYPES.values()}}.values())
def test_an_item_has_the_size_that_is_declared(precision):
    assert precision.dtype.itemsize == precision.size
