"""Find the checkpoint that a name or path means, and open it.

A name is tried, in this order, as a path; a folder or ``.gguf`` file under ``./models``; the packaged ``tales``; and a
released size (``124M``, ``gpt2-xl``, …), from Hugging Face's cache or downloaded.
"""

from __future__ import annotations

import os
from pathlib import Path
from reprlib import repr as short_repr

from gpt2lab.config import RELEASED_SIZES, canonical_size, names_of_size
from gpt2lab.errors import CheckpointError, UsageError
from gpt2lab.system.paths import expanded
from gpt2lab.weights.checkpoint import Checkpoint
from gpt2lab.weights.formats import open_path

MODELS_DIR = Path("models")
RUNS_DIR = Path("checkpoint")

TALES = Path(__file__).parent.parent / "assets" / "tales.gguf"


def open_checkpoint(name_or_path: str | os.PathLike[str]) -> Checkpoint:
    """Open the checkpoint that a name or path means; a released size that is not on this machine is downloaded.

    Raises :class:`CheckpointError` if there is none or it is malformed, and :class:`DownloadError` if the download
    fails.
    """
    return open_path(find_checkpoint(name_or_path))


def find_checkpoint(name_or_path: str | os.PathLike[str], models_dir: Path = MODELS_DIR) -> Path:
    """Return the path of the checkpoint that a name or path means.

    Raises :class:`~gpt2lab.errors.UsageError` if the argument is neither a name nor a path, and
    :class:`CheckpointError` if there is no such checkpoint.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise UsageError(f"a model must be a name or a path, got {short_repr(name_or_path)}")
    name = os.fspath(name_or_path)
    if not name or "\0" in name:
        raise CheckpointError(f"{name!r} is not a model's name; give a path, tales or one of {_sizes()}")
    path = Path(expanded(name))
    if path.exists() or Path(f"{path}.index").is_file():
        return path
    if len(path.parts) == 1:
        size = canonical_size(name)
        for candidate in (name, f"{name}.gguf", *(names_of_size(size) if size else [])):
            if (models_dir / candidate).exists():
                return models_dir / candidate
        if name == "tales" and TALES.is_file():
            return TALES
        if size is not None:
            from gpt2lab.weights.hub import find_or_download, in_hub_cache

            return in_hub_cache(size) or find_or_download(size)
    hint = f"do you mean {run}?" if (run := RUNS_DIR / name).is_dir() else f"give a path, tales or one of {_sizes()}"
    raise CheckpointError(f"no model at {name}, nor in {models_dir / name}; {hint}")


def _sizes() -> str:
    return ", ".join(RELEASED_SIZES)
