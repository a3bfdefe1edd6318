"""Recognise a checkpoint's format by its files, never by the folder's name.

Each format's module is imported when it is needed. This module knows nothing of names or downloads.
"""

from __future__ import annotations

from pathlib import Path

from gpt2lab.errors import CheckpointError
from gpt2lab.weights.checkpoint import Checkpoint


def open_path(path: Path) -> Checkpoint:
    """Open the checkpoint in a folder or file, whichever format it has."""
    if path.exists() and not path.is_dir() and not path.is_file():
        raise CheckpointError(f"{path} is neither a file nor a folder")
    if path.is_dir():
        return _open_folder(path)
    if path.is_file() and path.suffix == ".safetensors":
        return _open_folder(path.parent)
    if path.is_file() and path.suffix in (".pt", ".pth"):
        from gpt2lab.weights.nanogpt import read_nanogpt

        return read_nanogpt(path)
    if path.is_file() and path.suffix != ".index":
        from gpt2lab.weights.gguf import read_gguf

        return read_gguf(path)
    from gpt2lab.weights.openai import read_openai

    return read_openai(path)


def _open_folder(folder: Path) -> Checkpoint:
    if (folder / "config.json").is_file():
        from gpt2lab.weights.huggingface import read_huggingface

        return read_huggingface(folder)
    from gpt2lab.weights.openai import is_openai, read_openai

    if is_openai(folder):
        return read_openai(folder)
    files = sorted(folder.glob("*.gguf")) or sorted(folder.glob("ckpt.pt"))
    if len(files) == 1:
        return open_path(files[0])
    what = f"{len(files)} .gguf files: give the path of one" if files else "no checkpoint in a known format"
    raise CheckpointError(f"{folder}: holds {what}")
