import subprocess
import sys

import pytest
import torch

from gpt2lab.config import ModelConfig
from gpt2lab.training.adam import Adam
from gpt2lab.training.module import GPT2
from gpt2lab.training.optimizers import (
    ADAM_BETAS,
    BETAS,
    choose_trainable,
    load_optimizer_tensors,
    make_optimizers,
    optimizer_tensors,
)
from gpt2lab.training.settings import Settings

SHAPE = ModelConfig(n_vocab=17, n_ctx=8, n_embd=12, n_head=2, n_layer=2)
KINDS = ["adamw", "adam", "sgd", "muon"]


def make(seed=0, **settings):
    torch.manual_seed(seed)
    model, settings = GPT2(SHAPE), Settings(**settings)
    choose_trainable(model, settings)
    return model, make_optimizers(model, settings)


def step(model, optimizers, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(17, (2, 9), generator=generator)
    (model(tokens[:, :-1], tokens[:, 1:]) / 16).backward()
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = 0.01
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lora", [0, 2])
def test_state_by_name_is_all_that_going_on_needs(kind, lora):
    model, optimizers = make(optimizer=kind, lora=lora)
    step(model, optimizers, 1)
    other, others = make(seed=9, optimizer=kind, lora=lora)
    other.load_state_dict(model.state_dict())
    saved = {name: tensor.clone() for name, tensor in optimizer_tensors(model, optimizers).items()}
    load_optimizer_tensors(other, others, saved)
    for each in ((model, optimizers), (other, others)):
        step(*each, 2)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("kind", ["adam", "adamw", "muon"])
def test_epsilon_hat_is_added_before_the_correction_as_in_tensorflow(kind):
    model, optimizers = make(optimizer=kind, adam_epsilon="hat", weight_decay=0.0)
    (adam,) = (optimizer for optimizer in optimizers if isinstance(optimizer, Adam))
    weight = model.wpe.weight
    first, second, expected = torch.zeros_like(weight), torch.zeros_like(weight), weight.detach().double()
    beta1, beta2 = adam.betas
    for number in (1, 2, 3):
        gradient = 1e-8 * torch.randn_like(weight)  # so small that epsilon matters
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        weight.grad = gradient.clone()
        for group in adam.param_groups:
            group["lr"] = 0.01
        adam.step()
        first, second = beta1 * first + (1 - beta1) * gradient, beta2 * second + (1 - beta2) * gradient**2
        rate = 0.01 * (1 - beta2**number) ** 0.5 / (1 - beta1**number)
        expected = expected - rate * first.double() / (second.double().sqrt() + 1e-8)
        torch.testing.assert_close(weight.double(), expected, rtol=0, atol=1e-6)


def test_names_are_those_of_parameters():
    names = optimizer_tensors(*make(optimizer="muon"))
    assert {"wte.weight:exp_avg", "wte.weight:exp_avg_sq", "wte.weight:step"} <= names.keys()
    model, optimizers = make(optimizer="muon")
    step(model, optimizers, 1)
    assert "h.1.mlp.c_fc.weight:momentum_buffer" in optimizer_tensors(model, optimizers)


@pytest.mark.parametrize(("saved", "loaded"), [("adamw", "muon"), ("muon", "adamw"), ("adam", "sgd")])
def test_the_state_of_another_optimizer_is_refused(saved, loaded):
    model, optimizers = make(optimizer=saved)
    step(model, optimizers, 1)
    with pytest.raises(ValueError, match=r"optimizer|keeps"):
        load_optimizer_tensors(*make(optimizer=loaded), optimizer_tensors(model, optimizers))


@pytest.mark.parametrize("kind", KINDS)
def test_no_state_at_all_is_that_of_the_beginning(kind):
    model, optimizers = make(optimizer=kind)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    results = []
    for _ in range(2):
        model.load_state_dict(weights)
        load_optimizer_tensors(model, optimizers, {})
        step(model, optimizers, 1)
        results.append([parameter.clone() for parameter in model.parameters()])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_layers_alone_are_trained_if_asked():
    model, optimizers = make(only_train_transformer_layers=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    step(model, optimizers, 1)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("h.")}


def test_weight_decay_is_on_matrices_alone():
    model, (optimizer,) = make(weight_decay=0.5)
    for group in optimizer.param_groups:
        assert {parameter.dim() for parameter in group["params"]} == ({2} if group["weight_decay"] else {1})
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_adam_is_that_of_pytorch(kind):
    model, (ours,) = make(optimizer=kind, weight_decay=0.1)
    other, _ = make(optimizer=kind)
    theirs = {
        "adam": lambda: torch.optim.Adam(other.parameters(), lr=0.01, betas=ADAM_BETAS),
        "adamw": lambda: torch.optim.AdamW(
            [
                {"params": [p for p in other.parameters() if p.dim() == 2], "weight_decay": 0.1},
                {"params": [p for p in other.parameters() if p.dim() == 1], "weight_decay": 0.0},
            ],
            lr=0.01,
            betas=BETAS,
        ),
    }[kind]()
    for seed in range(3):
        step(model, [ours], seed)
        step(other, [theirs], seed)
    for (name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
        if name.endswith("attn.c_attn.bias"):  # but for rounding, that of the keys' biases is 0, and Adam divides
            one, two = (torch.cat([each.chunk(3)[0], each.chunk(3)[2]]) for each in (one, two))
        torch.testing.assert_close(one, two)


def test_what_has_no_gradient_does_not_move():
    model, (optimizer,) = make()
    before = [parameter.clone() for parameter in model.parameters()]
    model.wpe.weight.grad = torch.ones_like(model.wpe.weight)
    optimizer.param_groups[0]["lr"] = 0.01
    optimizer.step()
    moved = [not torch.equal(one, two) for one, two in zip(before, model.parameters(), strict=True)]
    assert moved == [name == "wpe.weight" for name, _ in model.named_parameters()]


@pytest.mark.parametrize("to_none", [True, False])
def test_gradients_are_forgotten(to_none):
    model, (optimizer,) = make()
    model.wpe.weight.grad = torch.ones_like(model.wpe.weight)
    optimizer.zero_grad(set_to_none=to_none)
    assert model.wpe.weight.grad is None if to_none else (model.wpe.weight.grad == 0).all()
    assert model.wte.weight.grad is None


def test_training_does_without_the_compiler_of_pytorch():
    code = """
import sys, torch
from gpt2lab.config import ModelConfig
from gpt2lab.training import start
from gpt2lab.training.module import GPT2
from gpt2lab.training.ops.compute import Compute
from gpt2lab.training.optimizers import make_optimizers
from gpt2lab.training.settings import Settings
config = ModelConfig(n_vocab=17, n_ctx=8, n_embd=12, n_head=2, n_layer=2)
model = GPT2(config, dropout=0.1, compute=Compute(recompute="layers"))
(optimizer,) = make_optimizers(model, Settings())
tokens = torch.zeros(1, 8, dtype=torch.int64)
model(tokens, tokens).backward()
torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
optimizer.step()
optimizer.zero_grad()
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
