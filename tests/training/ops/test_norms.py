"""Layer norm of the native core beside PyTorch's in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from gpt2lab import _native
from gpt2lab.training.ops import norms
from gpt2lab.training.ops import pool as pools
from gpt2lab.training.ops.compute import Compute
from gpt2lab.training.ops.norms import layer_norm
from gpt2lab.training.ops.pool import Pool

EPS = 1e-5


def matrices(rows, n):
    rng = np.random.default_rng(rows * n)
    x, d = rng.normal(size=(2, rows, n)).astype("f4")
    return 3 * x + 2, d, *rng.normal(size=(2, n)).astype("f4")


@pytest.mark.parametrize("isa", _native.instruction_sets())
@given(rows=st.integers(1, 200), n=st.integers(8, 70), threads=st.integers(1, 3))
def test_layer_norm_and_its_gradient_are_those_of_pytorch(isa, rows, n, threads):
    x, d, gain, bias = matrices(rows, n)
    inputs = [torch.from_numpy(each).double().requires_grad_() for each in (x, gain, bias)]
    expected = F.layer_norm(inputs[0], (n,), *inputs[1:], EPS)
    expected.backward(torch.from_numpy(d).double())
    core, out, d_gain, d_bias = (
        _native.TrainingCore(threads, isa),
        np.empty_like(x),
        np.empty(n, "f4"),
        np.empty(n, "f4"),
    )
    core.layer_norm(x, gain, bias, EPS, out)
    np.testing.assert_allclose(out, expected.detach().numpy(), rtol=1e-5, atol=1e-5)
    core.layer_norm_gradient(x, gain, EPS, d, d_gain, d_bias)
    for ours, theirs in zip((d, d_gain, d_bias), (each.grad.numpy() for each in inputs), strict=True):
        scale = np.abs(theirs).max()  # rows that are nearly constant have large gradients
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 + 1e-5 * scale)


@pytest.mark.parametrize("isa", _native.instruction_sets())
def test_the_number_of_threads_changes_no_bit(isa):
    results = []
    for threads in (1, 2, 3):
        x, d, gain, _ = matrices(300, 50)
        d_gain, d_bias = np.empty(50, "f4"), np.empty(50, "f4")
        _native.TrainingCore(threads, isa).layer_norm_gradient(x, gain, EPS, d, d_gain, d_bias)
        results.append((d, d_gain, d_bias))
    for others in results[1:]:
        assert all(np.array_equal(one, other) for one, other in zip(results[0], others, strict=True))


def test_a_row_that_is_not_a_number_spoils_no_other():
    x, d, gain, bias = matrices(5, 20)
    x[3, 2] = np.nan
    out = np.empty_like(x)
    core = _native.TrainingCore(2, "")
    core.layer_norm(x, gain, bias, EPS, out)
    core.layer_norm_gradient(x, gain, EPS, d, np.empty_like(gain), np.empty_like(bias))
    for result in (out, d):
        assert np.isnan(result).any(1).tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("isa", _native.instruction_sets())
@pytest.mark.parametrize("n", [1, 3, 40])
def test_a_row_of_one_number_becomes_the_bias(isa, n):
    x, d, gain, bias = matrices(2, n)
    x[:] = 7
    out = np.empty_like(x)
    _native.TrainingCore(1, isa).layer_norm(x, gain, bias, EPS, out)
    assert np.array_equal(out, np.tile(bias, (2, 1)))
    scale, centred = 1 / np.sqrt(EPS), d * gain - (d * gain).mean(1, keepdims=True)
    _native.TrainingCore(1, isa).layer_norm_gradient(x, gain, EPS, d, np.empty_like(gain), np.empty_like(bias))
    np.testing.assert_allclose(d, centred * scale, rtol=1e-4, atol=1e-4)


def test_other_shapes_and_types_are_refused():
    core, x, vector = _native.TrainingCore(1, ""), np.zeros((3, 4), "f4"), np.zeros(4, "f4")
    with pytest.raises(ValueError, match="one shape"):
        core.layer_norm(x, vector, vector, EPS, np.zeros((3, 5), "f4"))
    with pytest.raises(ValueError, match="as long as a row"):
        core.layer_norm(x, vector, np.zeros(5, "f4"), EPS, x)
    with pytest.raises(ValueError, match="as long as a row"):
        core.layer_norm_gradient(x, vector, EPS, x, vector, np.zeros(3, "f4"))
    with pytest.raises(ValueError, match="rows and columns"):
        core.layer_norm(x[:0], vector, vector, EPS, x[:0])
    with pytest.raises(TypeError):
        core.layer_norm(x.astype("f8"), vector, vector, EPS, x)
    with pytest.raises(TypeError):
        core.layer_norm(np.zeros((3, 8), "f4")[:, ::2], vector, vector, EPS, x)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("pool", [None, Pool(1 << 20)])
def test_gradients_through_a_norm_are_those_of_its_module(native, pool, monkeypatch):
    monkeypatch.setattr(pools, "LEAST", 1)
    if not native:
        monkeypatch.setattr(norms, "_suits", lambda *_: False)
    torch.manual_seed(0)
    norm = nn.LayerNorm(20)
    nn.init.normal_(norm.weight)
    results = []
    for function in (norm, lambda x: layer_norm(x, norm, Compute(pool=pool))):
        x = torch.from_numpy(matrices(6, 20)[0]).view(2, 3, 20).requires_grad_()
        norm.zero_grad()
        y = function(x)
        (y * y.detach().cos()).sum().backward()
        results.append((y, x.grad, norm.weight.grad, norm.bias.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
