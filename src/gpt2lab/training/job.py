"""The description of a training run: its text, the model it begins with, and its folders. Opens none of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2lab.config import ModelConfig

if TYPE_CHECKING:
    from gpt2lab.data.files import Errors


@dataclass(frozen=True)
class Job:
    """A training run: its text, the model that it begins with, and the folders that it saves into.

    ``config`` is the shape of a randomly initialized model; None starts from the checkpoint ``model_name``.
    """

    dataset: tuple[str, ...]
    model_name: str = "tales"
    config: ModelConfig | None = None
    val_dataset: str | None = None
    held_out: float = 0.05
    encoding: str = "utf-8"
    field: str | None = None
    column: str | None = None
    errors: Errors = "strict"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
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

    @property
    def samples(self) -> Path:
        """The folder of its samples."""
        return Path(self.sample_dir, self.run_name)
