import math
import os
import re
import signal

import numpy as np
import pytest
import torch

from gpt2lab.config import ModelConfig
from gpt2lab.data.tokens import Documents
from gpt2lab.data.windows import Ring, Windows
from gpt2lab.errors import CheckpointError, TrainingError
from gpt2lab.training.checkpoints import load_state, states
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


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adamw", "dropout": 0.1, "accumulate_gradients": 2},
        {"optimizer": "adam", "noise": 0.3, "memory_saving_gradients": True},
        {"optimizer": "sgd", "sampling": "uniform"},
        {"optimizer": "muon", "narrow_steps": 6},
        {"lora": 2, "dropout": 0.1},
    ],
    ids=lambda settings: next(iter(settings.values())),
)
def test_resuming_equals_not_stopping(make_trainer, counting, settings):
    settings = {**settings, "steps": 9, "val_every": 3, "seed": 5}
    whole = make_trainer("whole", held_out=counting, **settings)
    whole.train()
    first = make_trainer("parts", held_out=counting, **settings, stop_after=4)
    first.train()
    torch.manual_seed(99)
    second = make_trainer("parts", held_out=counting, **settings)
    second.restore(load_state(first.last_state))
    second.train()
    assert_same(weights(whole), weights(second))
    assert (whole.step, whole.position, whole.average) == (second.step, second.position, second.average)
