"""Recomputed results have the gradients of kept ones."""

import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gpt2lab.training.ops.recomputing import recomputed


class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.runs = nn.Linear(6, 8), nn.Linear(8, 6), 0

    def forward(self, x):
        self.runs += 1
        return self.second(F.dropout(self.first(x).tanh(), 0.5)) * x


def gradients(part, x, function, passes=1):
    torch.manual_seed(1)
    part.zero_grad()
    x.grad = None
    for _ in range(passes):
        y = function(function(x))
        y.square().sum().backward()
    after = torch.rand(1)
    return [y, after, x.grad, *(parameter.grad for parameter in part.parameters())]


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("passes", [1, 2])
def test_results_gradients_and_random_numbers_are_the_same(trained, passes):
    torch.manual_seed(0)
    part, x = Part(), torch.randn(3, 6, requires_grad=True)
    part.first.requires_grad_(trained)
    expected = gradients(part, x, part, passes)
    runs = part.runs
    ours = gradients(part, x, lambda x: recomputed(part, x), passes)
    assert part.runs == 3 * runs  # two more times in the backward pass
    for one, other in zip(expected, ours, strict=True):
        assert one is other is None or torch.equal(one, other)


def test_an_input_without_a_gradient_is_fine():
    torch.manual_seed(0)
    part, x = Part(), torch.randn(3, 6)
    for function in (part, lambda x: recomputed(part, x)):
        torch.manual_seed(1)
        part.zero_grad()
        function(x).sum().backward()
        assert x.grad is None
        if function is part:
            expected = part.first.weight.grad.clone()
    assert torch.equal(part.first.weight.grad, expected)


def test_nothing_but_the_input_is_kept():
    made = []

    def function(x):
        for _ in range(3):
            x = x * x
            made.append(weakref.ref(x.untyped_storage()))
        return x

    x = torch.ones(2, requires_grad=True)
    y = recomputed(function, x)
    assert [storage() is not None for storage in made] == [False, False, True]  # the last is y's
    y.sum().backward()
    assert (x.grad == 8).all()


def test_an_input_that_was_changed_meanwhile_is_found_out():
    x = torch.ones(2, requires_grad=True)
    between = x * 1
    y = recomputed(lambda x: x * x, between)
    with torch.no_grad():
        between.add_(1)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.sum().backward()


def test_a_second_run_that_fails_leaves_nothing_half_done():
    x, fails = torch.full((2,), 3.0, requires_grad=True), iter([False, True, False])

    def function(x):
        x = x * x
        if next(fails):
            raise KeyboardInterrupt
        return x * x

    y = recomputed(function, x).sum()
    with pytest.raises(KeyboardInterrupt):
        y.backward(retain_graph=True)
    y.backward()
    assert (x.grad == 4 * 27).all()


def test_a_function_that_does_something_else_the_second_time_is_found_out():
    x, times = torch.ones(2, requires_grad=True), iter([1, 2])

    def fickle(x):
        for _ in range(next(times)):
            x = x * x
        return x

    with pytest.raises(RuntimeError, match="recomputing saved 4 tensors, the forward pass 2"):
        recomputed(fickle, x).sum().backward()


def test_a_second_backward_pass_is_refused():
    x = torch.ones(2, requires_grad=True)
    y = recomputed(lambda x: x * x, x).sum()
    y.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second backward pass"):
        y.backward()
