"""What a training run is to be made of: its text, the model it begins with, and its folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gpt2lab.config import ModelConfig
from gpt2lab.errors import UsageError
from gpt2lab.model import tokenizer_of
from gpt2lab.tokenizer import Tokenizer
from gpt2lab.weights import Checkpoint, open_checkpoint


@dataclass(frozen=True)
class Job:
    """What to train on, what to begin with, and where to save.

    ``config`` is the shape of a model of random weights, None to begin with the checkpoint ``model_name``.
    """

    dataset: tuple[str, ...]
    model_name: str = "tales"
    config: ModelConfig | None = None
    val_dataset: str | None = None
    held_out: float = 0.05
    encoding: str = "utf-8"
    field: str | None = None
    column: str | None = None
    combine: int = 50_000
    run_name: str = "run1"
    checkpoint_dir: str = "checkpoint"
    sample_dir: str = "samples"
    restore_from: str = "latest"
    device: str = "cpu"

    @property
    def run(self) -> Path:
        """The run folder."""
        return Path(self.checkpoint_dir, self.run_name)


@dataclass(frozen=True)
class Source:
    """What training begins with; without a checkpoint it is random."""

    config: ModelConfig
    tokenizer: Tokenizer
    checkpoint: Checkpoint | None = None


def open_source(job: Job) -> Source:
    """The model that training begins with. Raises :class:`UsageError` if it has no tokenizer to read text with."""
    if job.config is not None:
        return Source(job.config, Tokenizer.gpt2())
    checkpoint = open_checkpoint(job.model_name)
    tokenizer = tokenizer_of(checkpoint)
    if tokenizer is None:
        raise UsageError(f"{job.model_name} has no tokenizer, which training needs: put its files beside the weights")
    return Source(checkpoint.config, tokenizer, checkpoint)
