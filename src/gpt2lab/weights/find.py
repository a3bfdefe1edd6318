"""From a name or path to an opened checkpoint: where models are looked for, and which format a file has."""

from __future__ import annotations

import os
from pathlib import Path

from gpt2lab.errors import CheckpointError
from gpt2lab.weights.checkpoint import Checkpoint
from gpt2lab.weights.openai import is_openai, read_openai


def open_checkpoint(name_or_path: str | os.PathLike[str]) -> Checkpoint:
    """Open the checkpoint that a name or path means.

    Raises :class:`CheckpointError` if there is none or it is malformed.
    """
    path = Path(name_or_path)
    if is_openai(path):
        return read_openai(path)
    raise CheckpointError(f"no checkpoint found at {path}")
