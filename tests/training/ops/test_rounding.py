import numpy as np
import pytest

import needs

needs.check("torch")

import torch  # noqa: E402

from gpt2lab.training.ops.rounding import round_int4  # noqa: E402
from gpt2lab.weights.integers import encode  # noqa: E402


def bits(values):
    return np.ascontiguousarray(values).view(np.uint32)


def numbers(n_in, n_out, decimals):
    random = np.random.default_rng(n_in)
    scales = random.choice(np.asarray([1e-33, 1e-3, 1, 50], np.float32), size=(1, n_out))
    weights = random.standard_normal((n_in, n_out)).round(decimals).astype(np.float32) * scales
    weights[:, 0] = 0
    weights[::2, 1], weights[1::2, 1] = 1, -1  # the first of several extremes counts
    return weights


@pytest.mark.parametrize(("n_in", "n_out"), [(256, 700), (300, 40), (768, 9), (32, 5), (5, 3)])
@pytest.mark.parametrize("decimals", [1, 9])
def test_rounded_weights_equal_those_of_a_file_bit_for_bit(n_in, n_out, decimals):
    weights = numbers(n_in, n_out, decimals)
    expected = encode(np.ascontiguousarray(weights.T), "int4").decode().T
    rounded = round_int4(torch.from_numpy(weights), torch.empty(n_in, n_out))
    assert (bits(rounded.numpy()) == bits(expected)).all()


def test_a_transposed_matrix_is_rounded_in_place_of_its_own():
    rows = torch.from_numpy(numbers(64, 300, 9).T.copy())  # [outputs, inputs], as wte is stored
    out = torch.empty_like(rows)
    round_int4(rows.t(), out.t())
    assert (bits(out.numpy()) == bits(encode(rows.numpy(), "int4").decode())).all()
