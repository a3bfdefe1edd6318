import math
import os
import re
import signal

import numpy as np
import pytest
import torch

from gpt2lab.errors import CheckpointError
from gpt2lab.training.checkpoints import states
from gpt2lab.training.data import Windows
from gpt2lab.weights import open_checkpoint


def weights(trainer):
    return {name: t.clone() for name, t in trainer.model.state_dict().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_loss_falls(make_trainer, optimizer):
    trainer = make_trainer(optimizer=optimizer, steps=150)
    first = trainer.update()
    for _ in range(149):
        last = trainer.update()
    assert first > 3.5
    assert last < 0.5


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resuming_equals_not_stopping(make_trainer, optimizer):
    settings = {"optimizer": optimizer, "dropout": 0.1, "accumulate_gradients": 2, "steps": 9}
    whole = make_trainer("whole", **settings)
    whole.train()
    first = make_trainer("parts", **settings)
    for _ in range(4):
        first.update()
    state = first.save()
    torch.manual_seed(99)
    second = make_trainer("parts", **settings)
    second.restore(state)
    second.train()
    assert_same(weights(whole), weights(second))


def test_accumulated_batches_equal_a_large_one(make_trainer):
    large, small = make_trainer(batch_size=6), make_trainer(batch_size=2, accumulate_gradients=3)
    assert large.update() == pytest.approx(small.update(), rel=1e-5)
    for one, other in zip(large.model.parameters(), small.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_ctrl_c_finishes_the_update_saves_and_says_so(make_trainer):
    said = []
    trainer = make_trainer(said=said, steps=1000)
    update = trainer.update

    def interrupted_update():
        if trainer.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return update()

    trainer.update = interrupted_update
    trainer.train()
    assert trainer.step == 3
    assert [state.name for state in states(trainer.run)] == ["state-0000003"]
    assert said[-1] == "interrupted"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_lines_are_the_originals(make_trainer):
    said = []
    make_trainer(said=said, steps=2).train()
    assert re.fullmatch(r"\[1 \| \d+\.\d\d\] loss=\d\.\d\d avg=\d\.\d\d", said[0])
    assert said[2].startswith("Saving ")


def test_the_run_folder_is_the_best_model_and_loads(make_trainer, counting):
    trainer = make_trainer(held_out=counting, steps=6, val_every=1)
    losses = iter([3.0, 2.0, 2.5, 2.4, 2.3, 2.2])
    kept = {}

    def validate(_held_out):
        kept[trainer.step] = weights(trainer)
        return next(losses)

    trainer.validate = validate
    trainer.train()
    checkpoint = open_checkpoint(trainer.run)
    assert (trainer.best, trainer.since_best) == (2.0, 4)
    assert checkpoint.config == trainer.model.config
    assert_same({n: torch.from_numpy(np.array(t)) for n, t in checkpoint.tensors.items()}, kept[2])


def test_a_state_folder_loads_as_a_model_too(make_trainer):
    trainer = make_trainer()
    assert open_checkpoint(trainer.save()).config == trainer.model.config


def test_patience_ends_training(make_trainer, counting):
    trainer = make_trainer(held_out=counting, steps=50, val_every=1, patience=3)
    trainer.validate = lambda _held_out: 1.0
    trainer.train()
    assert trainer.step == 4


def test_validation_is_the_mean_over_held_out_windows_and_leaves_training_alone(make_trainer):
    held_out = Windows(np.arange(1, 51, dtype=np.int32), 12, seed=0)
    trainer = make_trainer(dropout=0.5)
    before = weights(trainer)
    assert trainer.validate(held_out) == trainer.validate(held_out)
    assert_same(before, weights(trainer))
    assert trainer.validate(held_out) == pytest.approx(math.log(64), abs=0.3)


def test_first_updates_may_choose_among_the_datasets_own_tokens(make_trainer):
    trainer = make_trainer(narrow_steps=3, weight_decay=0.0)
    start = weights(trainer)["wte.weight"]
    for _ in range(3):
        trainer.update()
    narrow = weights(trainer)["wte.weight"]
    assert torch.equal(start[51:], narrow[51:])
    assert not torch.equal(start[1:51], narrow[1:51])
    for _ in range(200):
        trainer.update()
    trainer.model.eval()
    logits = trainer.model.logits(trainer.model(torch.arange(1, 13)[None]))
    assert logits.softmax(-1)[..., 51:].sum(-1).max() < 0.01


def test_only_the_last_two_states_stay(make_trainer):
    trainer = make_trainer(steps=5, save_every=1)
    trainer.train()
    assert [state.name for state in states(trainer.run)] == ["state-0000004", "state-0000005"]
    assert not list(trainer.run.rglob("*partial*"))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "progress.json"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_state_is_named(make_trainer, name, damage):
    trainer = make_trainer()
    trainer.update()
    state = trainer.save()
    whole = (state / name).read_bytes()
    (state / name).unlink()
    if damage == "cut":
        (state / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=state.name):
        make_trainer().restore(state)


def test_a_state_of_another_optimizer_is_refused(make_trainer):
    trainer = make_trainer(optimizer="muon")
    trainer.update()
    with pytest.raises(CheckpointError, match="optimizer"):
        make_trainer(optimizer="adamw").restore(trainer.save())
