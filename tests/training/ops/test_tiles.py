"""Training in bfloat16 on a matrix unit, beside PyTorch's in float32 and in bfloat16."""

import numpy as np
import pytest
import torch

import needs
from gpt2lab import _native
from gpt2lab.config import ModelConfig
from gpt2lab.training.module import GPT2
from gpt2lab.training.ops import loss
from gpt2lab.training.ops.attention import causal_attention
from gpt2lab.training.ops.compute import Compute
from gpt2lab.training.ops.products import multiply, sum_rows
from gpt2lab.training.optimizers import choose_trainable
from gpt2lab.training.settings import Settings

TILES = Compute("bfloat16", native=True)
needs_tiles = needs.mark("a CPU with AMX")


def gradients(compute, monkeypatch, lora=0, share=0.8, activation="gelu_new"):
    monkeypatch.setattr(loss, "CHUNK_ROWS", 50)  # gradients of several chunks are added
    torch.manual_seed(1)
    config = ModelConfig(n_vocab=301, n_ctx=40, n_embd=48, n_head=3, n_layer=2, activation=activation)
    model = GPT2(config, compute=compute)
    choose_trainable(model, Settings(lora=lora))
    for name, parameter in model.named_parameters():
        if name.endswith(".b"):  # zero in a new adapter, which would leave most gradients zero
            torch.nn.init.normal_(parameter, std=0.02)
    tokens = torch.randint(0, 301, (3, 40))
    value = model(tokens, tokens.flip(0), torch.rand(3, 40) < share)
    value.backward()
    return {"loss": value.detach(), **{name: p.grad for name, p in model.named_parameters() if p.requires_grad}}


@needs_tiles
@pytest.mark.parametrize(
    ("recompute", "setup"),
    [
        ("cheap", {}),
        ("layers", {}),
        ("none", {}),
        ("cheap", {"lora": 4}),
        ("cheap", {"share": 1.0}),
        ("cheap", {"activation": "silu"}),
    ],
    ids=str,
)
def test_gradients_are_as_near_to_those_in_float32_as_pytorchs_in_bfloat16(recompute, setup, monkeypatch):
    exact = gradients(Compute(), monkeypatch, **setup)
    ours = gradients(Compute("bfloat16", recompute, native=True), monkeypatch, **setup)
    theirs = gradients(Compute("bfloat16", recompute), monkeypatch, **setup)
    for name, gradient in exact.items():
        error, usual = ((each[name] - gradient).norm() / gradient.norm() for each in (ours, theirs))
        assert error <= 1.5 * usual + 1e-4, name


@needs_tiles
def test_repeating_an_update_or_the_number_of_threads_changes_no_bit(monkeypatch):
    first, again = gradients(TILES, monkeypatch), gradients(TILES, monkeypatch)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        other = gradients(TILES, monkeypatch)
    finally:
        torch.set_num_threads(threads)
    for name, gradient in first.items():
        assert torch.equal(gradient, again[name]), name
        assert torch.equal(gradient, other[name]), name


@needs_tiles
def test_a_batch_without_trained_targets_has_no_gradient(monkeypatch):
    assert all(not gradient.any() for gradient in gradients(TILES, monkeypatch, share=0.0).values())


@needs_tiles
@pytest.mark.parametrize("out_type", [torch.float32, torch.bfloat16])
def test_operands_may_have_either_type(out_type):
    a, b = torch.randn(33, 70), torch.randn(70, 50).bfloat16()
    expected = a.bfloat16().double() @ b.double()
    product = multiply(a, b, torch.empty(33, 50, dtype=out_type), TILES)
    torch.testing.assert_close(product.double(), expected, rtol=1e-2, atol=1e-3)


@needs_tiles
def test_an_operand_whose_rows_share_memory_is_copied():
    column = torch.arange(64.0)[:, None].expand(64, 64)
    product = multiply(column, torch.ones(64, 64), torch.empty(64, 64), TILES)
    assert torch.equal(product, 64 * column)


@needs_tiles
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_of_rows_are_float32(dtype):
    x = torch.randn(200, 77).to(dtype)
    torch.testing.assert_close(sum_rows(x, TILES), x.float().sum(0))


@needs_tiles
@pytest.mark.parametrize("scale", [None, 0.5])
def test_attention_is_pytorchs(scale):
    torch.manual_seed(3)
    qkv = torch.randn(2, 99, 3 * 4 * 24).bfloat16()
    d_out = torch.randn(2, 99, 4 * 24).bfloat16()
    results = []
    for compute in (TILES, Compute()):
        x = qkv.clone().to(compute.dtype).requires_grad_()
        out = causal_attention(x * 1, 4, compute, scale)
        out.backward(d_out.to(compute.dtype))
        results.append((out.detach().float(), x.grad.float()))
    for ours, exact in zip(*results, strict=True):
        assert (ours - exact).norm() <= 0.01 * exact.norm()


@needs_tiles
def test_the_loss_is_exact_for_the_logits():
    logits = (4 * torch.randn(5, 1003)).bfloat16()
    targets, losses, expected = torch.tensor([0, 1002, 500, 3, 3]), torch.empty(5), logits.float().requires_grad_()
    wanted = torch.nn.functional.cross_entropy(expected, targets, reduction="none")
    wanted.sum().backward()
    _native.TrainingCore(2, "amx").cross_entropy(logits, targets, losses)
    torch.testing.assert_close(losses, wanted.detach())
    torch.testing.assert_close(logits.float(), expected.grad, rtol=5e-3, atol=1e-6)


@needs_tiles
def test_what_does_not_fit_is_refused():
    core, x = _native.TrainingCore(1, "amx"), torch.zeros(4, 5).bfloat16()
    with pytest.raises(ValueError, match="shapes"):
        core.multiply_tiles(x, x, torch.zeros(4, 5))
    with pytest.raises(ValueError, match="not among the logits"):
        core.cross_entropy(x, torch.tensor([0, 1, 2, 5]), torch.zeros(4))
    with pytest.raises(ValueError, match="float32 or bfloat16"):
        core.multiply_tiles(np.zeros((4, 4)), x, torch.zeros(4, 5))
    with pytest.raises(ValueError, match="must be bfloat16"):
        core.gelu_gradient_tiles(torch.zeros(4, 5), x)


def test_without_a_matrix_unit_tiles_are_refused():
    core, x = _native.TrainingCore(1, "baseline"), np.zeros((4, 4), "f4")
    assert not core.has_tiles
    with pytest.raises(ValueError, match="need a matrix unit"):
        core.multiply_tiles(x, x, np.zeros((4, 4), "f4"))
