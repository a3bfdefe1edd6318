"""The description of a training run: its text, the model it begins with, and its folders. Opens none of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gpt2lab.config import ModelConfig
from gpt2lab.data.files import Errors
from gpt2lab.errors import UsageError


@dataclass(frozen=True)
class Given:
    """Documents in memory, each an object as in a file of JSON lines: a text, or a prompt and its completion."""

    records: tuple[dict[str, str], ...]

    def __str__(self) -> str:
        return f"{len(self.records)} texts given from Python"


@dataclass(frozen=True)
class Job:
    """A training run: its text, the model that it begins with, and the folders that it saves into.

    Text is given as paths, or in memory; with ``special``, special tokens in it are more than text. ``config`` is the
    shape of a randomly initialized model; None starts from the checkpoint ``model_name``, and ``activation`` is its
    activation if its files do not record it; ``n_layer`` and ``n_ctx`` are a larger shape to grow it to. Raises
    :class:`UsageError` if ``run_name`` names no folder.
    """

    dataset: tuple[str, ...] | Given
    model_name: str = "tales"
    activation: str | None = None
    config: ModelConfig | None = None
    n_layer: int | None = None
    n_ctx: int | None = None
    val_dataset: str | Given | None = None
    held_out: float = 0.05
    encoding: str = "utf-8"
    field: str | None = None
    column: str | None = None
    errors: Errors = "strict"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    special: bool = False
    combine: int = 50_000
    run_name: str = "run1"
    checkpoint_dir: str = "checkpoint"
    sample_dir: str = "samples"
    restore_from: str = "latest"
    device: str = "cpu"

    def __post_init__(self) -> None:
        if Path(self.run_name).name in ("", ".."):
            raise UsageError(f"--run_name must be the name of a folder for this run, got {self.run_name!r}")

    def described(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them; texts in memory are counted instead."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        config = self.config and self.config.to_hparams()
        texts = {name: str(value) for name, value in values.items() if isinstance(value, Given)}
        return {**values, "config": config, **texts}

    @property
    def run(self) -> Path:
        """The run folder."""
        return Path(self.checkpoint_dir, self.run_name)

    @property
    def samples(self) -> Path:
        """The folder of its samples."""
        return Path(self.sample_dir, self.run_name)
