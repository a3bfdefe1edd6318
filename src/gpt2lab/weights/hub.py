"""The released sizes on the Hugging Face hub, and in its cache on this machine.

``huggingface_hub`` is imported only when a file must be looked up or fetched through it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpt2lab.errors import CheckpointError, DownloadError, first_line
from gpt2lab.system.hashing import sha256_of
from gpt2lab.weights.formats import open_path

HUB_REPOSITORIES = {
    "124M": "openai-community/gpt2",
    "355M": "openai-community/gpt2-medium",
    "774M": "openai-community/gpt2-large",
    "1558M": "openai-community/gpt2-xl",
}
"""The Hugging Face hub's repositories of the released sizes."""

HUB_WEIGHTS = "model.safetensors"
HUB_FILES = ("config.json", "vocab.json", "merges.txt", HUB_WEIGHTS)

HUB_EXTRAS = ("generation_config.json", "tokenizer.json", "tokenizer_config.json")


def in_hub_cache(size: str) -> Path | None:
    """Return the folder of a released size in Hugging Face's cache, or None if it is not found there.

    This needs no ``huggingface_hub``, whose import takes longer than all the rest of a start. If it finds nothing,
    :func:`find_or_download` asks ``huggingface_hub`` again.
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


def find_or_download(size: str) -> Path:
    """Return the folder of a released size in Hugging Face's cache; download it first if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    repository = HUB_REPOSITORIES[size]
    cached = [try_to_load_from_cache(repository, name) for name in ("config.json", HUB_WEIGHTS)]
    if all(isinstance(path, str) for path in cached):
        return Path(str(cached[0])).parent
    for path in hub_files(size, [*HUB_EXTRAS, *HUB_FILES], None):
        folder = path.parent
    check_download(folder)
    return folder


def hub_files(size: str, names: list[str], folder: Path | None) -> Iterator[Path]:
    """Get files of a released size into ``folder`` or the hub's cache, one after the other.

    Extras that the hub lacks are left out. The weights are checked against the SHA-256 that the hub reports.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository = HUB_REPOSITORIES[size]
    # this comes first: without a network it fails at once, while a download retries for half a minute
    with _hub_errors(size, HUB_WEIGHTS):
        sha256 = get_hf_file_metadata(hf_hub_url(repository, HUB_WEIGHTS)).etag or ""
    for name in names:
        with _hub_errors(size, name):
            try:
                path = Path(hf_hub_download(repository, name, local_dir=folder))
            except EntryNotFoundError as error:
                if name not in HUB_EXTRAS or isinstance(error, LocalEntryNotFoundError):
                    raise
                continue
        if name == HUB_WEIGHTS and len(sha256) == 64 and sha256_of(path) != sha256:
            _discard(path)
            raise DownloadError(f"{name} of {repository} has another sha256 than {sha256}; try again")
        yield path


def _discard(path: Path) -> None:
    """Delete a file that was just fetched; in the hub's cache it is a link into the repository's folder of contents."""
    contents = path.resolve()
    if path.is_symlink() and contents.parent == path.parent.parent.parent.resolve() / "blobs":
        contents.unlink(missing_ok=True)
    path.unlink(missing_ok=True)


@contextmanager
def _hub_errors(size: str, name: str) -> Iterator[None]:
    """Turn any error of the hub's client into one line; its version decides whether httpx or requests raises it."""
    try:
        yield
    except Exception as error:
        reason = first_line(error) or type(error).__name__
        raise DownloadError(
            f"cannot get {name} of {HUB_REPOSITORIES[size]} from the Hugging Face hub ({reason}); "
            f"is this machine online? Another way is `gpt2lab download {size} --source openai`; "
            "the built-in `tales` needs no download"
        ) from None


def check_download(folder: Path) -> None:
    """Open the downloaded checkpoint; reading TensorFlow's files also checks the checksum of each tensor."""

    try:
        checkpoint = open_path(folder)
        if checkpoint.format == "openai":
            for name in checkpoint.tensors:
                checkpoint.tensors[name]
    except CheckpointError as error:
        raise DownloadError(f"the download is not a usable model: {error}") from None
