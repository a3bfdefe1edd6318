"""From a name or path to an opened checkpoint: where models are looked for, and which format a file has.

A name is, in this order: a path; a folder or ``.gguf`` file under ``./models``; the packaged ``tales``; a released
size (``124M``, ``gpt2-xl``, …), from Hugging Face's cache or downloaded. Formats are told by the files that are
there, never by a folder's name. Each format's module is imported when it is needed.
"""

from __future__ import annotations

import os
from pathlib import Path
from reprlib import repr as short_repr

from gpt2lab.config import RELEASED_SIZES, canonical_size
from gpt2lab.errors import CheckpointError, UsageError
from gpt2lab.weights.checkpoint import Checkpoint

MODELS_DIR = Path("models")
TALES = Path(__file__).parent.parent / "assets" / "tales.gguf"

HUB_REPOSITORIES = {
    "124M": "openai-community/gpt2",
    "355M": "openai-community/gpt2-medium",
    "774M": "openai-community/gpt2-large",
    "1558M": "openai-community/gpt2-xl",
}
"""Where the Hugging Face hub has the released sizes."""
HUB_WEIGHTS = "model.safetensors"


def open_checkpoint(name_or_path: str | os.PathLike[str]) -> Checkpoint:
    """Open the checkpoint that a name or path means; a released size that is nowhere is downloaded.

    Raises :class:`CheckpointError` if there is none or it is malformed, and :class:`DownloadError` if it cannot be
    fetched.
    """
    return open_path(find_checkpoint(name_or_path))


def find_checkpoint(name_or_path: str | os.PathLike[str], models_dir: Path = MODELS_DIR) -> Path:
    """Where the checkpoint that a name or path means lies.

    Raises :class:`~gpt2lab.errors.UsageError` for what is neither, :class:`CheckpointError` if there is none.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise UsageError(f"a model is named by text or by a path, got {short_repr(name_or_path)}")
    name = os.fspath(name_or_path)
    if not name or "\0" in name:
        raise CheckpointError(f"{name!r} is no name of a model; give a path, tales or one of {_sizes()}")
    path = Path(name)
    if path.exists() or Path(f"{name}.index").is_file():
        return path
    if len(path.parts) == 1:
        size = canonical_size(name)
        for candidate in (name, f"{name}.gguf", *([size] if size else [])):
            if (models_dir / candidate).exists():
                return models_dir / candidate
        if name == "tales" and TALES.is_file():
            return TALES
        if size is not None:
            return _in_hub_cache(size) or _from_hub(size)
    raise CheckpointError(f"no model at {name}, nor in {models_dir / name}; give a path, tales or one of {_sizes()}")


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
    what = f"{len(files)} .gguf files, name one of them" if files else "no checkpoint that is known here"
    raise CheckpointError(f"{folder}: holds {what}")


def _in_hub_cache(size: str) -> Path | None:
    """The folder of a released size in Hugging Face's cache.

    Looked up here because importing ``huggingface_hub`` takes longer than all of a start. What is not found where it
    is by default, ``huggingface_hub`` looks for again.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    home = Path(os.environ.get("HF_HOME") or caches / "huggingface")
    hub = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or home / "hub"
    repository = Path(os.path.expandvars(hub)).expanduser() / f"models--{HUB_REPOSITORIES[size].replace('/', '--')}"
    try:
        folder = repository / "snapshots" / (repository / "refs" / "main").read_text(encoding="ascii")
        complete = all((folder / name).is_file() for name in ("config.json", HUB_WEIGHTS))
    except (OSError, ValueError, RuntimeError):
        return None
    return folder if complete else None


def _from_hub(size: str) -> Path:
    from gpt2lab.weights.download import find_or_download

    return find_or_download(size)


def _sizes() -> str:
    return ", ".join(RELEASED_SIZES)
