"""The switches of GPT-2's family in training: losses and gradients against transformers, and runs that keep them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import family
import needs
from gpt2lab.weights import open_checkpoint

torch = needs.package("torch")
from gpt2lab.training.job import Job  # noqa: E402
from gpt2lab.training.module import GPT2  # noqa: E402
from gpt2lab.training.ops.compute import Compute  # noqa: E402
from gpt2lab.training.reporting import Lines  # noqa: E402
from gpt2lab.training.settings import Settings  # noqa: E402
from gpt2lab.training.start import Session  # noqa: E402

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


@pytest.fixture
def texts(tmp_path, monkeypatch) -> Path:
    """Provide a folder with a text, and models of GPT-2's vocabulary with every switch and with exact GELU."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("".join(f"Once upon a time there was a mouse number {i}. " for i in range(60)))
    for switch in ("all", "gelu"):
        family.save(switch, tmp_path / switch, vocab_size=50257, n_positions=16, n_embd=8, n_head=2, n_layer=2)
    return tmp_path


def train(model: str, run: str, steps: int, **settings) -> dict[str, np.ndarray]:
    """Train for ``steps`` updates in all, and return the weights in the run folder."""
    job = Job(dataset=("text.txt",), model_name=model, run_name=run, held_out=0)
    quick = {"precision": "float32", "batch_size": 2, "accumulate_gradients": 1, "sample_every": 0, "optimizer": "adam"}
    assert Session(job, Settings(steps=steps, **{**quick, **settings}), Lines()).finish() == 0
    return dict(open_checkpoint(f"checkpoint/{run}").tensors)


@pytest.mark.usefixtures("no_curve")
def test_a_resumed_run_keeps_the_switches_and_equals_one_that_never_stopped(texts):
    train("all", "twice", 4, stop_after=2)
    resumed, straight = train("all", "twice", 4), train("all", "once", 4)
    assert open_checkpoint("checkpoint/twice").config == open_checkpoint("all").config
    assert "lm_head.weight" in resumed
    for name, tensor in straight.items():
        np.testing.assert_array_equal(resumed[name], tensor, name)
    assert not np.array_equal(resumed["lm_head.weight"], open_checkpoint("all").tensors["lm_head.weight"])


@pytest.mark.usefixtures("no_curve")
def test_transformers_loads_what_was_trained(texts):
    train("all", "run", 1)
    theirs = family.transformers.AutoModelForCausalLM.from_pretrained("checkpoint/run", local_files_only=True).eval()
    model, ids = ours("checkpoint/run", WAYS["PyTorch"]), torch.tensor([family.tokens(16)])
    with torch.no_grad():
        np.testing.assert_allclose(model.logits(model.hidden(ids)), theirs(ids).logits, atol=1e-4, rtol=0)


@pytest.mark.usefixtures("no_curve")
def test_a_narrow_phase_teaches_the_head_every_token(texts):
    trained = train("all", "run", 2, narrow_steps=1)
    assert np.isfinite(trained["lm_head.weight"]).all()


@pytest.mark.usefixtures("no_curve")
def test_only_the_layers_are_trained_where_that_is_asked(texts):
    trained, before = train("all", "run", 1, only_train_transformer_layers=True), open_checkpoint("all").tensors
    for name in ("wte.weight", "lm_head.weight"):
        np.testing.assert_array_equal(trained[name], before[name])
    assert not np.array_equal(trained["h.0.mlp.c_fc.weight"], before["h.0.mlp.c_fc.weight"])


@pytest.mark.usefixtures("no_curve")
def test_a_state_of_another_activation_is_refused(texts):
    from gpt2lab.errors import CheckpointError

    train("gelu", "run", 1)
    config = json.loads(Path("gelu/config.json").read_text())
    Path("gelu/config.json").write_text(json.dumps(config | {"activation_function": "relu"}))
    with pytest.raises(CheckpointError, match="activation is gelu in the state, relu now"):
        train("gelu", "run", 2)


@pytest.mark.parametrize("switch", ["gelu", "relu", "silu", "unscaled", "untied"])
def test_losses_in_bfloat16_are_near_and_their_gradients_point_the_same_way(switch, tmp_path):
    family.save(switch, tmp_path)
    batch, found = torch.tensor([family.tokens()]), []
    for precision in ("float32", "bfloat16"):
        model = ours(tmp_path, Compute(precision=precision))
        loss = model(batch[:, :-1], batch[:, 1:])
        loss.backward()
        found.append((loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])))
    (exact, gradient), (rounded, other) = found
    assert rounded == pytest.approx(exact, rel=0.05)
    assert torch.nn.functional.cosine_similarity(gradient, other, dim=0) > 0.95
