"""A tiny dataset, model and trainer. All tests here need torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from gpt2lab.config import ModelConfig
from gpt2lab.training.data import Windows
from gpt2lab.training.loop import Trainer
from gpt2lab.training.settings import Settings

TINY = ModelConfig(n_vocab=64, n_ctx=12, n_embd=16, n_head=2, n_layer=2)


@pytest.fixture
def golden() -> Path:
    return Path(__file__).parents[1] / "golden"


@pytest.fixture
def counting() -> Windows:
    """A ring in which every token tells the next: 1 2 3 … 50 1 2 3 …"""
    return Windows(np.tile(np.arange(1, 51, dtype=np.int32), 8), TINY.n_ctx, seed=3)


@pytest.fixture
def make_trainer(tmp_path: Path, counting: Windows, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trainer]:
    """A trainer of the tiny model; keyword arguments are settings, ``said`` collects what it says."""
    monkeypatch.setattr("gpt2lab.training.loop.END_OF_TEXT", 0)

    def make(
        run: str = "run", held_out: Windows | None = None, said: list[str] | None = None, **settings: Any
    ) -> Trainer:
        defaults = {"steps": 8, "batch_size": 3, "learning_rate": 1e-2, "warmup_steps": 2, "save_every": 0}
        say = (said if said is not None else []).append
        return Trainer(TINY, Settings(**{**defaults, **settings}), counting, held_out, tmp_path / run, say)

    return make
