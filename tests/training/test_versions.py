import numpy as np
import pytest
import torch

from gpt2lab.config import ModelConfig
from gpt2lab.errors import UsageError
from gpt2lab.training.checkpoints import load_state
from gpt2lab.training.memory import estimate
from gpt2lab.training.restoring import restore
from gpt2lab.training.settings import Settings, resolved
from gpt2lab.weights import open_checkpoint
from gpt2lab.weights.convert import convert
from gpt2lab.weights.integers import is_matrix

WIDE = ModelConfig(n_vocab=64, n_ctx=12, n_embd=32, n_head=2, n_layer=1)


def weights(trainer):
    return {name: t.detach().clone() for name, t in trainer.model.named_parameters()}


def test_the_forward_pass_sees_the_weights_of_the_int4_file_of_the_run(make_trainer, tmp_path):
    trainer = make_trainer(config=WIDE, quantize="int4", steps=3)
    trainer.train()
    with trainer.versions.rounded():
        seen = weights(trainer)
    convert(open_checkpoint(trainer.run), tmp_path / "packed", precision="int4")
    packed = open_checkpoint(tmp_path / "packed").tensors
    assert all((packed[name] == seen[name].numpy()).all() for name in packed)


def test_rounding_moves_the_exact_weights_along_the_gradient_of_the_rounded(make_trainer):
    exact = make_trainer("exact", optimizer="sgd", clip=float("inf"))
    trainer = make_trainer("rounded", optimizer="sgd", clip=float("inf"), quantize="int4")
    before = weights(trainer)
    with trainer.versions.rounded():
        seen = weights(trainer)
    with torch.no_grad():
        for name, parameter in exact.model.named_parameters():
            parameter.copy_(seen[name])
    exact.update(), trainer.update()
    for name, moved in weights(exact).items():
        torch.testing.assert_close(weights(trainer)[name] - before[name], moved - seen[name], atol=1e-6, rtol=1e-4)
    assert any(not torch.equal(before[name], seen[name]) for name in before if is_matrix(name))


def test_validation_is_that_of_the_rounded_model(make_trainer, counting):
    trainer = make_trainer(held_out=counting, quantize="int4", steps=1, val_every=1)
    trainer.train()
    plain = trainer.validate(counting)
    with trainer.versions.rounded():
        rounded = trainer.validate(counting)
    assert trainer.latest == rounded != plain


def test_the_saved_model_is_the_average_of_the_weights(make_trainer):
    trainer = make_trainer(average=0.5, steps=2)
    average = weights(trainer)
    for step in (1, 2):
        trainer.update()
        share = 1 - min(0.5, step / (step + 10))
        average = {name: average[name] + share * (new - average[name]) for name, new in weights(trainer).items()}
    trainer.save()
    saved = open_checkpoint(trainer.run).tensors
    for name, tensor in average.items():
        np.testing.assert_allclose(saved[name], tensor, atol=1e-6)


def test_a_state_without_an_average_begins_one(make_trainer):
    first = make_trainer(steps=2)
    first.train()
    second = make_trainer(steps=2, average=0.9)
    restore(second, load_state(first.last_state))
    with second.versions.averaged():
        assert all(torch.equal(one, weights(first)[name]) for name, one in weights(second).items())


@pytest.mark.parametrize(
    "settings",
    [{"quantize": "int4", "lora": 2}, {"quantize": "int4", "parallel": "fsdp"}, {"average": 0.9, "lora": 2}],
)
def test_settings_that_exclude_each_other_are_named(settings):
    with pytest.raises(UsageError, match=r"quantize|average"):
        resolved(Settings(**settings), WIDE, 100, from_scratch=True)


def test_tokens_that_were_left_out_get_their_rows_in_the_average_too(make_trainer, counting):
    trainer = make_trainer(average=0.9, narrow_steps=1, steps=3)
    trainer.update(), trainer.versions.change(lambda: trainer.model.wte.weight.data.zero_())
    with trainer.versions.averaged():
        assert not trainer.model.wte.weight.any()
    assert not trainer.model.wte.weight.any()
    trainer.update()
    unused = sorted(set(range(64)) - set(counting.used_ids().tolist()))
    with trainer.versions.averaged():
        rows = trainer.model.wte.weight[unused]
    assert len(unused) > 1 and torch.equal(rows, rows[:1].expand_as(rows))


def test_the_memory_of_other_versions_is_estimated():
    plain, average, rounded = (
        estimate(WIDE, resolved(Settings(**more), WIDE, 100, from_scratch=True)).weights
        for more in ({}, {"average": 0.9}, {"quantize": "int4"})
    )
    assert average == plain + 4 * WIDE.n_params
    assert plain < rounded < average


def test_the_best_model_is_chosen_again_once_weights_are_rounded(make_trainer, counting):
    first = make_trainer(held_out=counting, steps=2, val_every=1)
    first.train()
    again, rounded = (make_trainer(held_out=counting, steps=3, val_every=1, quantize=q) for q in ("none", "int4"))
    restore(again, load_state(first.last_state)), restore(rounded, load_state(first.last_state))
    assert (again.best, rounded.best) == (first.best, float("inf"))
