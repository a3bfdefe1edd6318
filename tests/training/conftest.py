"""A tiny dataset, model and trainer. All tests here need torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import needs

needs.check("torch")

import torch

from gpt2lab.config import ModelConfig
from gpt2lab.data.tokens import Documents
from gpt2lab.data.windows import Ring, Windows
from gpt2lab.training.loop import Trainer
from gpt2lab.training.module import GPT2
from gpt2lab.training.optimizers import choose_trainable
from gpt2lab.training.reporting import Reporter, Update, Validation
from gpt2lab.training.settings import Settings, resolved

TINY = ModelConfig(n_vocab=64, n_ctx=12, n_embd=16, n_head=2, n_layer=2)


class Notes(Reporter):
    """A reporter that records its calls."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.updates: list[Update] = []
        self.validations: list[Validation] = []

    def say(self, line: str) -> None:
        self.said.append(line)

    def update(self, made: Update) -> None:
        self.updates.append(made)

    def validation(self, made: Validation) -> None:
        self.validations.append(made)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def golden() -> Path:
    return Path(__file__).parents[1] / "golden"


@pytest.fixture
def counting() -> Windows:
    """Return a ring in which every token determines the next: 0 1 2 3 … 50 0 1 2 3 …"""
    documents = Documents.of([np.arange(1, 51)] * 8)
    return Windows(Ring(documents, separator=0), TINY.n_ctx, seed=3)


@pytest.fixture
def make_trainer(tmp_path: Path, counting: Windows) -> Callable[..., Trainer]:
    """Return a trainer of the tiny model; keyword arguments are settings, and ``reporter`` is a :class:`Notes`."""

    def make(
        run: str = "run",
        held_out: Windows | None = None,
        windows: Windows = counting,
        config: ModelConfig = TINY,
        **settings: Any,
    ) -> Trainer:
        defaults = {"steps": 8, "batch_size": 3, "accumulate_gradients": 1, "learning_rate": 1e-2, "warmup_steps": 2}
        others = {"precision": "float32", "save_every": 0, "sample_every": 0}
        chosen = resolved(Settings(**{**defaults, **others, **settings}), config, len(windows), from_scratch=True)
        torch.manual_seed(chosen.seed)
        model = GPT2(config, chosen.dropout)
        choose_trainable(model, chosen)
        return Trainer(model, chosen, windows, held_out, tmp_path / run, reporter=Notes())

    return make
