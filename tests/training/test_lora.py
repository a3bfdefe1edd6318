import pytest
import torch

from gpt2lab.config import ModelConfig
from gpt2lab.errors import UsageError
from gpt2lab.training.lora import PLACES, adapter_tensors, add_lora, merged
from gpt2lab.training.module import GPT2
from gpt2lab.training.ops.compute import Compute

SHAPE = ModelConfig(n_vocab=37, n_ctx=16, n_embd=24, n_head=2, n_layer=3)


def adapted(*targets, dropout=0.0, trained=True):
    torch.manual_seed(0)
    model = GPT2(SHAPE)
    add_lora(model, 2, 6.0, targets or list(PLACES), dropout, seed=5)
    if trained:
        for tensor in adapter_tensors(model).values():
            tensor.normal_()
    return model


def text():
    return torch.randint(37, (2, 9)), torch.randint(37, (2, 9))


def test_a_new_adapter_changes_nothing():
    torch.manual_seed(0)
    plain = GPT2(SHAPE)
    tokens, targets = text()
    assert adapted(trained=False)(tokens, targets).item() == pytest.approx(plain(tokens, targets).item(), rel=1e-6)


@pytest.mark.parametrize("targets", [*PLACES, "attn.q attn.v", "all"])
def test_merged_weights_compute_the_same(targets):
    model = adapted(*(PLACES if targets == "all" else targets.split()))
    plain = GPT2(SHAPE)
    plain.load_state_dict(merged(model))
    tokens, _ = text()
    torch.testing.assert_close(plain.hidden(tokens), model.hidden(tokens), atol=1e-5, rtol=1e-5)


def test_only_the_columns_of_a_target_change():
    model = adapted("attn.v")
    before, after = model.h[1].attn.c_attn.weight, merged(model)["h.1.attn.c_attn.weight"]
    assert torch.equal(before[:, :48], after[:, :48])
    assert not torch.equal(before[:, 48:], after[:, 48:])


def test_adapters_alone_are_trained():
    model = adapted("attn.q", "mlp.fc")
    model(*text()).backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == adapter_tensors(model).keys()
    assert len(with_gradient) == 3 * 2 * 2


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradients_are_the_same_whatever_is_recomputed(dropout):
    model, (tokens, targets) = adapted(dropout=dropout), text()
    gradients = []
    for recompute in ("none", "cheap", "layers"):
        model.compute = Compute(recompute=recompute)
        model.zero_grad()
        torch.manual_seed(3)
        model(tokens, targets).backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for others in gradients[1:]:
        for one, other in zip(gradients[0], others, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_first_matrices_depend_on_the_seed_alone():
    one, other = adapted(trained=False), adapted(trained=False)
    for name, tensor in adapter_tensors(one).items():
        assert torch.equal(tensor, adapter_tensors(other)[name])
    again = GPT2(SHAPE)
    add_lora(again, 2, 6.0, list(PLACES), seed=6)
    assert not torch.equal(again.h[0].mlp.c_fc.adapter.a, one.h[0].mlp.c_fc.adapter.a)
    assert not torch.equal(one.h[0].mlp.c_fc.adapter.a, one.h[1].mlp.c_fc.adapter.a)


def test_mistakes_are_told():
    with pytest.raises(UsageError, match=r"attn\.x"):
        add_lora(GPT2(SHAPE), 2, 4.0, ["attn.x"])
    with pytest.raises(UsageError, match="at least 1"):
        add_lora(GPT2(SHAPE), 0, 4.0, ["attn.q"])
