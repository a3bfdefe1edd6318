"""The switches of GPT-2's family in training: losses and gradients against transformers, and runs that keep them."""

from __future__ import annotations

import pytest

import family
import needs
from gpt2lab.weights import open_checkpoint

torch = needs.package("torch")
from gpt2lab.training.module import GPT2  # noqa: E402
from gpt2lab.training.ops.compute import Compute  # noqa: E402

WAYS = {
    "PyTorch": Compute(recompute="cheap"),
    "native": Compute(recompute="cheap", native=True),
    "kept": Compute(recompute="none"),
    "layers again": Compute(recompute="layers", native=True),
}


def ours(folder, compute: Compute) -> GPT2:
    checkpoint = open_checkpoint(folder)
    model = GPT2(checkpoint.config, compute=compute)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(checkpoint.tensors[name]))
    return model


@family.EACH
@pytest.mark.parametrize("way", WAYS)
def test_losses_and_gradients_are_transformers(switch, way, tmp_path):
    theirs = family.save(switch, tmp_path)
    model = ours(tmp_path, WAYS[way])
    batch = torch.tensor([family.tokens(), family.tokens()[::-1]])
    tokens, targets = batch[:, :-1], batch[:, 1:]
    logits = theirs(tokens).logits.flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction="sum")
    expected.backward()
    loss = model(tokens, targets)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-3)
    gradients = {name.removeprefix("transformer."): p.grad for name, p in theirs.named_parameters()}
    assert gradients.keys() == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        scale = float(gradients[name].abs().max())
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-4 * max(scale, 1), msg=name)


@pytest.mark.parametrize("switch", ["gelu", "relu", "silu"])
def test_adapters_see_the_activation(switch, tmp_path):
    from gpt2lab.training.lora import add_lora

    family.save(switch, tmp_path)
    found = {}
    for way in ("native", "kept"):
        model = ours(tmp_path, WAYS[way])
        add_lora(model, 2, 4.0, ["mlp.fc", "mlp.proj"])
        for block in model.h:
            torch.nn.init.constant_(block.mlp.c_proj.adapter.b, 0.1)
        tokens = torch.tensor([family.tokens()])
        model(tokens[:, :-1], tokens[:, 1:]).backward()
        found[way] = [block.mlp.c_proj.adapter.a.grad for block in model.h]
    for one, other in zip(*found.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_softmax_over_some_ids_uses_the_head(tmp_path):
    family.save("untied", tmp_path)
    model = ours(tmp_path, WAYS["PyTorch"])
    batch = torch.tensor([family.tokens()])
    ids = torch.unique(batch)
    logits = model.logits(model.hidden(batch[:, :-1]))[..., ids].flatten(0, 1)
    targets = torch.searchsorted(ids, batch[0, 1:])
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    torch.testing.assert_close(model(batch[:, :-1], batch[:, 1:], ids=ids), expected, rtol=1e-5, atol=1e-3)
