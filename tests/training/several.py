"""Trains the tiny model as one of several processes: run by test_distributed.py, with torchrun or without.

    python several.py OUT '{"name": {settings…}, …}'

For each case writes OUT/NAME.json, the losses, and OUT/NAME, the run. A case may also have ``switches`` of the model;
``restore``, the path of a state or "latest"; and in its third update one of ``fail_on``, a rank that makes a mistake,
or "all"; ``signal_on``, one that gets SIGTERM; ``kill_on``, one that is killed, but not again after a restart;
``unreported``, after which the main process cannot write its records.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpt2lab.config import ModelConfig
from gpt2lab.data.tokens import Documents
from gpt2lab.data.windows import Ring, Windows
from gpt2lab.errors import UsageError
from gpt2lab.training.checkpoints import load_latest, load_state
from gpt2lab.training.distributed import World
from gpt2lab.training.loop import Trainer
from gpt2lab.training.module import GPT2
from gpt2lab.training.ops import pool as pools
from gpt2lab.training.ops.compute import Compute
from gpt2lab.training.ops.pool import Pool
from gpt2lab.training.optimizers import choose_trainable
from gpt2lab.training.reporting import Reporter, Update, Validation
from gpt2lab.training.restoring import restore
from gpt2lab.training.settings import Settings, resolved

CONFIG = ModelConfig(n_vocab=67, n_ctx=12, n_embd=16, n_head=2, n_layer=2)  # 67 rows: shards of unequal size
DEFAULTS = {
    "steps": 20,
    "batch_size": 2,
    "accumulate_gradients": 4,
    "learning_rate": 1e-2,
    "warmup_steps": 2,
    "precision": "float32",
    "save_every": 0,
    "sample_every": 0,
    "val_every": 10,
    "val_batch_size": 2,
    "val_batch_count": 3,  # which two processes cannot share equally
}


class Losses(Reporter):
    def __init__(self, most: float) -> None:
        self.most = most
        self.losses: list[float] = []
        self.validations: list[float] = []

    @property
    def failure(self) -> str | None:
        return "cannot write metrics" if len(self.losses) >= self.most else None

    def update(self, made: Update) -> None:
        self.losses.append(made.loss)

    def validation(self, made: Validation) -> None:
        self.validations.append(made.loss)


class Disturbed(Trainer):
    """A trainer whose third update fails or is interrupted."""

    disturbance: dict[str, Any]

    def update(self) -> float:
        rank = self.world.rank
        if self.step == 2:
            if self.disturbance.get("fail_on") in (rank, "all"):
                raise UsageError(f"bad on {self.disturbance['fail_on']}")
            if self.disturbance.get("signal_on") == rank:
                os.kill(os.getpid(), signal.SIGTERM)
            if self.disturbance.get("kill_on") == rank and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0":
                os.kill(os.getpid(), signal.SIGKILL)
        return super().update()


def windows(seed: int) -> Windows:
    """Return random documents, a third of whose tokens bear no loss."""
    random = np.random.default_rng(seed)
    texts = [np.cumsum(random.integers(1, 4, size=50)) % 66 for _ in range(6)]
    documents = Documents.of(texts)
    trained = random.random(len(documents.tokens)) > 1 / 3
    return Windows(Ring(Documents(documents.tokens, documents.starts, trained), separator=66), CONFIG.n_ctx, seed=3)


def train(world: World, out: Path, name: str, case: dict[str, Any]) -> None:
    case = dict(case)
    config = replace(CONFIG, **case.pop("switches", {}))
    restore_from = case.pop("restore", None)
    unreported = case.pop("unreported", np.inf)
    disturbance = {key: case.pop(key) for key in ("fail_on", "signal_on", "kill_on") if key in case}
    train_on = windows(1)
    chosen = resolved(Settings(**{**DEFAULTS, **case}), config, len(train_on), from_scratch=True)
    recompute = "layers" if chosen.memory_saving_gradients else "cheap"
    compute = Compute("float32", recompute, native=True, pool=Pool(1 << 24))  # products are too small to be native
    with world.building():
        torch.manual_seed(5)
        model = GPT2(config, chosen.dropout, compute)
        choose_trainable(model, chosen)
    reporter = Losses(unreported if world.is_main else np.inf)
    trainer = Disturbed(model, chosen, train_on, windows(2), out / name, world, reporter)
    trainer.disturbance = disturbance
    if restore_from is not None:
        state = load_latest(out / name, print) if restore_from == "latest" else load_state(Path(restore_from))
        if state is not None:
            restore(trainer, state)
    ended = trainer.train()
    if world.is_main:
        result = {"losses": reporter.losses, "validations": reporter.validations, "ended": ended, "step": trainer.step}
        (out / f"{name}.json").write_text(json.dumps(result))


def main(out: Path, cases: dict[str, dict[str, Any]]) -> None:
    with World.start() as world:
        for name, case in cases.items():
            train(world, out, name, case)


if __name__ == "__main__":
    from gpt2lab.errors import Gpt2LabError

    torch.set_num_threads(1)
    pools.LEAST = 1  # byte, so that even these small tensors come from the pool
    try:
        main(Path(sys.argv[1]), json.loads(sys.argv[2]))
    except Gpt2LabError as error:  # as the command line does
        print(f"gpt2lab: error: {error}", file=sys.stderr)
        sys.exit(2)
