"""Writing a trainer's model and states into its run folder. This module knows nothing of when they are due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from gpt2lab.training import checkpoints
from gpt2lab.training.distributed import World
from gpt2lab.training.lora import adapter_tensors, merged
from gpt2lab.training.module import GPT2
from gpt2lab.training.optimizers import AnyOptimizer, optimizer_tensors
from gpt2lab.training.settings import Settings
from gpt2lab.training.versions import Versions
from gpt2lab.weights.tokenizer_copy import TokenizerCopy


@dataclass(frozen=True)
class Saver:
    """The run folder ``run``, and everything in memory that goes into it. All processes call its methods together."""

    run: Path
    model: GPT2
    settings: Settings
    optimizers: Sequence[AnyOptimizer]
    versions: Versions
    world: World
    vocabulary: TokenizerCopy | None

    def write_model(self) -> None:
        """Write the run folder's model: the average of the weights if there is one."""

        def write(tensors: Mapping[str, Tensor]) -> None:
            checkpoints.write_model(self.run, self.model.config, tensors, self.vocabulary)

        with self.versions.averaged():
            self.world.on_main(write, merged(self.model))

    def save_state(self, progress: Mapping[str, Any]) -> None:
        """Write a state to resume from, with ``progress``, the settings and the shape of the model."""
        kind, weights = ("adapter", adapter_tensors) if self.settings.lora else ("model", merged)
        described = {**progress, "settings": asdict(self.settings), "config": self.model.config.to_hparams()}

        def write(weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> None:
            checkpoints.save_state(
                *(self.run, self.model.config, kind, weights, optimizer, described),
                keep=self.settings.keep,
                hours=self.settings.keep_checkpoint_every_n_hours,
                vocabulary=self.vocabulary,
            )

        optimizer = {**optimizer_tensors(self.model, self.optimizers), **self.versions.tensors()}
        self.world.on_main(write, weights(self.model), optimizer)
