import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import needs
from gpt2lab.config import ModelConfig
from gpt2lab.data.tokens import Documents
from gpt2lab.data.windows import Batch, Ring, Windows
from gpt2lab.training.loop import Trainer
from gpt2lab.training.module import GPT2
from gpt2lab.training.ops.compute import Compute
from gpt2lab.training.optimizers import choose_trainable
from gpt2lab.training.settings import Settings, resolved
from gpt2lab.weights import open_checkpoint, tensor_shapes


def load(folder):
    checkpoint = open_checkpoint(folder)
    model = GPT2(checkpoint.config)
    model.load_state_dict({name: torch.from_numpy(np.array(t)) for name, t in checkpoint.tensors.items()})
    return model


def test_names_and_shapes_are_the_canonical_ones():
    config = ModelConfig(n_vocab=11, n_ctx=6, n_embd=8, n_head=2, n_layer=3)
    assert {name: tuple(t.shape) for name, t in GPT2(config).state_dict().items()} == tensor_shapes(config)


@pytest.mark.parametrize(("name", "kept"), [("odd", "full_logits"), ("tiny", "full_logits_slice")])
def test_logits_are_those_of_the_original_code(golden, name, kept):
    model, numbers = load(golden / name), np.load(golden / name / "golden.npz")
    with torch.no_grad():
        logits = model.logits(model.hidden(torch.from_numpy(numbers["full_tokens"])))
    assert np.abs(logits[..., : numbers[kept].shape[-1]].numpy() - numbers[kept]).max() <= 1e-4


class GoldenBatches(Windows):
    """The eight batches that the original code was trained on, each an update's, and the first one to validate with."""

    def __init__(self, batches):
        super().__init__(Ring(Documents.of([batches.flatten()], int(batches.max()) + 1), separator=None), 8, seed=0)
        self.batches = batches

    def batch(self, position, size):
        tokens = self.batches[position // size]
        return Batch(tokens[:, :-1], tokens[:, 1:], np.ones_like(tokens[:, 1:], dtype=bool))

    def in_order(self, size, count=None):
        yield self.batch(0, len(self.batches[0]))


@pytest.mark.parametrize(("name", "rtol"), [("odd", 5e-4), ("tiny", 5e-5)])  # PyTorch's epsilon gives up to 1.7e-4
def test_eight_adam_updates_of_a_trainer_give_the_losses_of_the_original_code(golden, name, rtol, tmp_path):
    model, numbers = load(golden / name), np.load(golden / name / "golden.npz")
    batches = GoldenBatches(numbers["train_batches"].astype(np.int64))
    options = {"optimizer": "adam", "adam_epsilon": "hat", "schedule": "constant", "warmup_steps": 0, "clip": math.inf}
    asked = Settings(
        steps=8, batch_size=3, accumulate_gradients=1, learning_rate=1e-3, precision="float32", val_every=0, **options
    )
    choose_trainable(model, asked)
    trainer = Trainer(model, resolved(asked, model.config, 8, from_scratch=False), batches, None, tmp_path / "run")
    losses = [update.loss for update in trainer.updates()]
    np.testing.assert_allclose(losses, numbers["train_losses"], rtol=rtol)
    last = trainer.validate(batches)
    np.testing.assert_allclose(last, numbers["train_final_loss_first_batch"], rtol=rtol)


def test_dropout_changes_training_and_not_evaluation():
    model = GPT2(ModelConfig(n_vocab=11, n_ctx=6, n_embd=8, n_head=2, n_layer=1), dropout=0.5)
    tokens = torch.arange(6)[None]
    assert not torch.equal(model.hidden(tokens), model.hidden(tokens))
    model.eval()
    assert torch.equal(model.hidden(tokens), model.hidden(tokens))


def plain_loss(model, tokens, targets, trained=None, ids=None):
    """Compute the same loss from PyTorch's own parts alone."""
    state, config = dict(model.named_parameters()), model.config
    x = F.embedding(tokens, state["wte.weight"]) + state["wpe.weight"][: tokens.shape[1]]

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    def product(x, name):
        return x @ state[f"{name}.weight"] + state[f"{name}.bias"]

    for layer in (f"h.{number}" for number in range(config.n_layer)):
        qkv = product(norm(x, f"{layer}.ln_1"), f"{layer}.attn.c_attn").chunk(3, -1)
        q, k, v = (each.unflatten(-1, (config.n_head, -1)).transpose(1, 2) for each in qkv)
        future = torch.full((x.shape[1], x.shape[1]), -torch.inf).triu(1)
        a = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + future).softmax(-1) @ v
        x = x + product(a.transpose(1, 2).flatten(2), f"{layer}.attn.c_proj")
        inner = F.gelu(product(norm(x, f"{layer}.ln_2"), f"{layer}.mlp.c_fc"), approximate="tanh")
        x = x + product(inner, f"{layer}.mlp.c_proj")
    logits = norm(x, "ln_f") @ state["wte.weight"].t()
    if ids is not None:
        others = torch.ones(config.n_vocab, dtype=torch.bool).index_fill(0, ids, False)
        logits = logits.masked_fill(others, -torch.inf)
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return (losses if trained is None else losses[trained.flatten()]).sum()


SHAPE = ModelConfig(n_vocab=37, n_ctx=16, n_embd=24, n_head=3, n_layer=3)


def case():
    torch.manual_seed(0)
    model = GPT2(SHAPE)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model, torch.randint(37, (2, 11)), torch.randint(37, (2, 11))


def gradients(model):
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("recompute", ["none", "cheap", "layers"])
@pytest.mark.parametrize("what", ["all", "trained", "ids", "nothing"])
def test_loss_and_gradients_are_those_of_plain_pytorch(recompute, what):
    model, tokens, targets = case()
    model.compute = Compute(recompute=recompute)
    trained = {"trained": torch.rand(2, 11) < 0.4, "nothing": torch.zeros(2, 11, dtype=torch.bool)}.get(what)
    ids = torch.cat([tokens, targets]).unique() if what == "ids" else None
    ours = model(tokens, targets, trained, ids)
    (ours * 0.3).backward()
    found = gradients(model)
    model.zero_grad()
    theirs = plain_loss(model, tokens, targets, trained, ids)
    (theirs * 0.3).backward()
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(found[name], gradient, atol=2e-5, rtol=1e-4, msg=name)


def test_gradients_of_several_batches_add_up():
    model, tokens, targets = case()
    model(tokens, targets).backward()
    whole = gradients(model)
    model.zero_grad()
    for row in range(2):
        model(tokens[row : row + 1], targets[row : row + 1]).backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(whole[name], gradient, atol=2e-5, rtol=1e-4)


def test_dropout_is_the_same_whatever_is_recomputed():
    found = []
    for recompute in ("none", "cheap", "layers"):
        torch.manual_seed(1)
        model = GPT2(SHAPE, dropout=0.3, compute=Compute(recompute=recompute))
        model(*case()[1:]).backward()
        found.append(gradients(model))
    for other in found[1:]:
        for name, gradient in found[0].items():
            torch.testing.assert_close(gradient, other[name], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("recompute", ["cheap", "layers"])
def test_bfloat16_is_near_and_its_gradients_are_float32(recompute):
    model, tokens, targets = case()
    exact = model(tokens, targets)
    exact.backward()
    expected = gradients(model)
    model.zero_grad()
    model.compute = Compute("bfloat16", recompute)
    near = model(tokens, targets)
    near.backward()
    assert near.dtype == torch.float32
    assert near.item() == pytest.approx(exact.item(), rel=0.01)
    for name, gradient in gradients(model).items():
        assert gradient.dtype == torch.float32
        assert (gradient - expected[name]).norm() < 0.05 * expected[name].norm() + 0.05, name


def test_frozen_weights_get_no_gradient():
    model, tokens, targets = case()
    model.requires_grad_(False)
    model.h[2].mlp.requires_grad_(True)
    model(tokens, targets).backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {
        f"h.2.mlp.{name}" for name in ("c_fc.weight", "c_fc.bias", "c_proj.weight", "c_proj.bias")
    }


def test_transformers_finds_the_same_loss_and_gradients():
    transformers = needs.package("transformers")
    model, tokens, _ = case()
    config = transformers.GPT2Config(
        vocab_size=37, n_positions=16, n_embd=24, n_head=3, n_layer=3, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    )
    theirs = transformers.GPT2LMHeadModel(config)
    theirs.transformer.load_state_dict(model.state_dict())
    loss = theirs(input_ids=tokens, labels=tokens).loss
    loss.backward()
    ours = model(tokens[:, :-1], tokens[:, 1:]) / tokens[:, 1:].numel()
    ours.backward()
    torch.testing.assert_close(ours, loss)
    for name, parameter in theirs.transformer.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients(model)[name], atol=1e-5, rtol=1e-4)
