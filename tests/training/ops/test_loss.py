import pytest
import torch
from torch.nn import functional as F

from gpt2lab.training.ops import loss
from gpt2lab.training.ops.compute import Compute
from gpt2lab.training.ops.loss import cross_entropy


def example(rows=23, n_embd=6, n_vocab=37):
    torch.manual_seed(0)
    hidden, weight = torch.randn(rows, n_embd, requires_grad=True), torch.randn(n_vocab, n_embd, requires_grad=True)
    return hidden, weight, torch.randint(n_vocab, (rows,))


@pytest.mark.parametrize("chunk_rows", [1, 10, 23, 512])
def test_value_and_gradients_equal_the_plain_ones(monkeypatch, chunk_rows):
    monkeypatch.setattr(loss, "CHUNK_ROWS", chunk_rows)
    hidden, weight, targets = example()
    ours = cross_entropy(hidden, weight, targets)
    theirs = F.cross_entropy(F.linear(hidden, weight), targets, reduction="sum")
    torch.testing.assert_close(ours, theirs)
    for one, other in zip(
        torch.autograd.grad(ours * 3, (hidden, weight)), torch.autograd.grad(theirs * 3, (hidden, weight)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_bfloat16_is_near():
    hidden, weight, targets = example()
    ours = cross_entropy(hidden, weight, targets, compute=Compute("bfloat16"))
    theirs = cross_entropy(hidden, weight, targets)
    assert abs(ours.item() - theirs.item()) < 0.02 * len(targets)
    one, other = torch.autograd.grad(ours, weight)[0], torch.autograd.grad(theirs, weight)[0]
    assert (one - other).norm() < 0.02 * other.norm()


def test_a_hopeless_target_has_a_finite_loss():
    hidden = torch.tensor([[1000.0]])
    assert torch.isfinite(cross_entropy(hidden, torch.tensor([[1.0], [-1.0]]), torch.tensor([1])))


def test_without_gradients_nothing_is_kept():
    hidden, weight, targets = example()
    with torch.no_grad():
        assert not cross_entropy(hidden, weight, targets).requires_grad
