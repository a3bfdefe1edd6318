"""Attention of the native core beside PyTorch's in float64."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gpt2lab import _native
from gpt2lab.training.ops import attention, products
from gpt2lab.training.ops.attention import causal_attention
from gpt2lab.training.ops.compute import Compute

ISAS = _native.instruction_sets()
NATIVE = Compute(native=True)


def plain(qkv, n_head):
    batch, time, width = qkv.shape
    q, k, v = (x.transpose(1, 2) for x in qkv.view(batch, time, 3, n_head, width // 3 // n_head).unbind(2))
    scores = (q @ k.transpose(2, 3)) / k.shape[-1] ** 0.5
    masked = scores.masked_fill(torch.ones(time, time, dtype=torch.bool).triu(1), -torch.inf)
    return (F.softmax(masked, -1) @ v).transpose(1, 2).reshape(batch, time, width // 3)


@pytest.fixture(params=ISAS)
def isa(request, monkeypatch):
    cores = _native.TrainingCore(2, request.param)
    monkeypatch.setattr(attention, "core", lambda: cores)
    return request.param


@pytest.mark.parametrize(
    ("batch", "time", "n_head", "head_dim"),
    [(1, 1, 2, 1), (2, 5, 3, 7), (1, 97, 2, 64), (1, 193, 2, 33), (3, 33, 1, 80), (1, 400, 2, 64)],
)
def test_values_and_gradients_are_the_plain_ones(isa, batch, time, n_head, head_dim):
    torch.manual_seed(time)
    qkv = 2 * torch.randn(batch, time, 3 * n_head * head_dim)
    weights = torch.randn(batch, time, n_head * head_dim)
    ours, theirs = qkv.clone().requires_grad_(), qkv.double().requires_grad_()
    out, expected = causal_attention(ours * 1, n_head, NATIVE), plain(theirs, n_head)
    torch.testing.assert_close(out, expected.float(), rtol=1e-5, atol=1e-5)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad.float(), rtol=1e-4, atol=2e-5)


def test_large_scores_do_not_overflow(isa):
    qkv = 100 * torch.randn(1, 40, 3 * 2 * 16)
    torch.testing.assert_close(causal_attention(qkv, 2, NATIVE), plain(qkv.double(), 2).float(), rtol=1e-3, atol=1e-2)


def test_gradients_are_right_where_scores_are_large(isa):
    qkv = 12 * torch.randn(1, 200, 3 * 2 * 16)
    ours, theirs = qkv.clone().requires_grad_(), qkv.double().requires_grad_()
    weights = torch.randn(1, 200, 2 * 16)
    (causal_attention(ours, 2, NATIVE) * weights).sum().backward()
    (plain(theirs, 2) * weights).sum().backward()
    scale = theirs.grad.abs().max()
    assert (ours.grad - theirs.grad).abs().max() <= 1e-4 * scale


@pytest.mark.parametrize("name", ISAS)
def test_the_number_of_threads_changes_no_bit(name):
    rng = np.random.default_rng(1)
    qkv, d_out = rng.normal(size=(2, 130, 3, 3, 20)).astype("f4"), rng.normal(size=(2, 130, 3, 20)).astype("f4")
    results = []
    for threads in (1, 2, 5):
        core = _native.TrainingCore(threads, name)
        out, sums, d_qkv = np.empty_like(d_out), np.empty((2, 3, 130), "f4"), np.empty_like(qkv)
        core.attend(qkv, out, sums)
        core.attend_backward(qkv, sums, d_out, d_qkv)
        results.append((out.tobytes(), d_qkv.tobytes()))
    assert results[0] == results[1] == results[2]


def test_what_the_native_core_does_not_take_is_left_to_pytorch(monkeypatch):
    monkeypatch.setattr(attention, "core", lambda: pytest.fail("it was asked"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    qkv = torch.randn(1, 10, 3 * 2 * 4)
    torch.testing.assert_close(causal_attention(qkv, 2, NATIVE), plain(qkv, 2))  # fewer heads than threads
    halves = torch.randn(2, 10, 3 * 2 * 4).bfloat16()
    assert causal_attention(halves, 2, NATIVE).dtype == torch.bfloat16


def test_it_is_the_native_core_that_computes(monkeypatch):
    calls = []
    real = products.core()
    monkeypatch.setattr(attention, "core", lambda: calls.append(1) or real)
    qkv = torch.randn(2, 10, 3 * 2 * 4, requires_grad=True)
    causal_attention(qkv, 2, NATIVE).sum().backward()
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("qkv", "out", "sums"),
    [
        ((1, 4, 2, 2, 3), (1, 4, 2, 3), (1, 2, 4)),
        ((1, 4, 3, 2, 3), (1, 5, 2, 3), (1, 2, 4)),
        ((1, 4, 3, 2, 3), (1, 4, 2, 3), (1, 4, 2)),
        ((1, 0, 3, 2, 3), (1, 0, 2, 3), (1, 2, 0)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(qkv, out, sums):
    with pytest.raises(ValueError, match=r"do not fit|from 1 to"):
        _native.TrainingCore(1, "").attend(*(np.zeros(shape, "f4") for shape in (qkv, out, sums)))


def test_a_gradient_of_another_shape_is_refused():
    core, one, other = _native.TrainingCore(1, ""), (1, 4, 3, 2, 3), (1, 4, 3, 3, 2)
    out, sums = np.zeros((1, 4, 2, 3), "f4"), np.zeros((1, 2, 4), "f4")
    with pytest.raises(ValueError, match=r"fit|shape"):
        core.attend_backward(np.zeros(one, "f4"), sums, out, np.zeros(other, "f4"))
