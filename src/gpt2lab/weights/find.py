"""Find the checkpoint that a name or path means, and open it.

A name is tried, in this order, as a path; a folder or ``.gguf`` file under ``./models``; the packaged ``tales``; and a
released size (``124M``, ``gpt2-xl``, …) or a model on the Hugging Face hub (``USER/MODEL``, ``USER/MODEL@REVISION``),
from its cache or downloaded.
"""

from __future__ import annotations

import os
from pathlib import Path
from reprlib import repr as short_repr

from gpt2lab.config import RELEASED_SIZES, canonical_size, names_of_size
from gpt2lab.errors import CheckpointError, UsageError, one_line
from gpt2lab.system.paths import expanded
from gpt2lab.weights.checkpoint import Checkpoint
from gpt2lab.weights.formats import open_path

MODELS_DIR = Path("models")
RUNS_DIR = Path("checkpoint")

TALES = Path(__file__).parent.parent / "assets" / "tales.gguf"


def open_checkpoint(name_or_path: str | os.PathLike[str], *, activation: str | None = None) -> Checkpoint:
    """Open the checkpoint that a name or path means; a model of the hub that is not on this machine is downloaded.

    ``activation`` is for files that do not record it: one of :data:`~gpt2lab.config.ACTIVATION_NAMES`; None: assumed.
    The checkpoint's notes are logged as warnings, which appear on stderr unless the program configures ``logging``.
    Raises :class:`CheckpointError` if there is none or it is malformed, and :class:`DownloadError` if the download
    fails.
    """
    checkpoint = open_path(find_checkpoint(name_or_path), activation)
    if checkpoint.notes:
        import logging

        for note in checkpoint.notes:
            logging.getLogger("gpt2lab").warning("gpt2lab: %s", one_line(note))
    return checkpoint


def find_checkpoint(name_or_path: str | os.PathLike[str], models_dir: Path = MODELS_DIR) -> Path:
    """Return the path of the checkpoint that a name or path means.

    A path that exists wins over a name. Raises :class:`~gpt2lab.errors.UsageError` if the argument is neither a name
    nor a path, :class:`CheckpointError` if there is no such checkpoint, and :class:`DownloadError` if it cannot be
    fetched.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise UsageError(f"a model must be a name or a path, got {short_repr(name_or_path)}")
    name = os.fspath(name_or_path)
    if not name or "\0" in name:
        raise CheckpointError(f"{name!r} is not a model's name; give a path, tales or one of {_sizes()}")
    path = Path(expanded(name))
    if path.exists() or Path(f"{path}.index").is_file():
        return path
    size = canonical_size(name) if len(path.parts) == 1 else None
    for candidate in (name, f"{name}.gguf", *(names_of_size(size) if size else [])):
        if len(path.parts) <= 2 and ".." not in path.parts and (models_dir / candidate).exists():
            return models_dir / candidate
    if name == "tales" and TALES.is_file():
        return TALES
    if (run := RUNS_DIR / name).is_dir():
        raise CheckpointError(f"no model at {name}, nor in {models_dir / name}; do you mean {run}?")
    from gpt2lab.weights.hub import find_or_download, hub_model, in_hub_cache

    if (model := hub_model(name)) is not None:
        return in_hub_cache(model) or find_or_download(model)
    raise CheckpointError(
        f"no model at {name}, nor in {models_dir / name}; give a path, tales, one of {_sizes()}, "
        "or USER/MODEL on the Hugging Face hub"
    )


def _sizes() -> str:
    return ", ".join(RELEASED_SIZES)
