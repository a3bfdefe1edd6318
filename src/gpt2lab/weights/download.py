"""The released sizes: from the Hugging Face hub (through ``huggingface_hub``) or from OpenAI's public bucket.

Every file's SHA-256 is recorded beside it in ``download.json``; a second download checks against that and fetches
only what is missing. Files that were not downloaded by this module are never replaced. Reads no weights but to check
them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpt2lab.config import RELEASED_SIZES, canonical_size
from gpt2lab.errors import CheckpointError, DownloadError
from gpt2lab.weights.checkpoint import parse_json, read_bytes
from gpt2lab.weights.fetch import Progress, fetch, sha256_of
from gpt2lab.weights.find import HUB_REPOSITORIES, HUB_WEIGHTS
from gpt2lab.weights.vocabulary import GPT2_ENCODER_SHA256, GPT2_MERGES_SHA256

SOURCES = ("huggingface", "openai")
MANIFEST = "download.json"

OPENAI_URL = "https://openaipublic.blob.core.windows.net/gpt-2/models"
OPENAI_URL_VARIABLE = "GPT2LAB_OPENAI_URL"
"""Environment variable with another address for :data:`OPENAI_URL`, say of a mirror."""

_OPENAI_FILES = {  # small ones first: a wrong address shows at once
    "checkpoint": None,
    "hparams.json": None,
    "encoder.json": GPT2_ENCODER_SHA256,
    "vocab.bpe": GPT2_MERGES_SHA256,
    "model.ckpt.index": None,
    "model.ckpt.meta": None,
    "model.ckpt.data-00000-of-00001": None,
}

_HUB_FILES = ("config.json", "vocab.json", "merges.txt", HUB_WEIGHTS)
_HUB_EXTRAS = ("generation_config.json", "tokenizer.json", "tokenizer_config.json")

FileProgress = Callable[[str], Progress]
"""Called with a file's name when it starts; what it returns is told how far it has come."""


def download(
    size: str, *, source: str = "huggingface", models_dir: Path = Path("models"), progress: FileProgress | None = None
) -> Path:
    """Download a released size to ``models_dir/<size>``, which is returned, and check it.

    ``size`` is a name of ``RELEASED_SIZES`` or an alias of one. What is there already and unchanged is not fetched
    again. Raises :class:`DownloadError` where it cannot be had; what has come is kept and gone on from next time.
    """
    name = canonical_size(size)
    if name is None:
        raise DownloadError(f"there is no released size {size!r}; there are {', '.join(RELEASED_SIZES)}")
    if source not in SOURCES:
        raise DownloadError(f"there is no source {source!r}; there are {', '.join(SOURCES)}")
    folder = models_dir / name
    try:
        manifest = _Manifest(folder, source)
        if source == "openai":
            _from_openai(name, manifest, progress or (lambda file: lambda done, total: None))
        else:
            _from_hub(HUB_REPOSITORIES[name], manifest)
    except OSError as error:
        raise DownloadError(f"cannot write to {folder}: {error.strerror or error}") from None
    _check(folder)
    return folder


def find_or_download(size: str) -> Path:
    """The folder of a released size in Hugging Face's cache, downloaded to there if it is not in it yet."""
    from huggingface_hub import try_to_load_from_cache

    repository = HUB_REPOSITORIES[size]
    cached = [try_to_load_from_cache(repository, name) for name in ("config.json", HUB_WEIGHTS)]
    if all(isinstance(path, str) for path in cached):
        return Path(str(cached[0])).parent
    for path in _hub_files(repository, [*_HUB_EXTRAS, *_HUB_FILES], None):
        folder = path.parent
    _check(folder)
    return folder


class _Manifest:
    """``download.json`` of a folder: what was downloaded to it and from where, with SHA-256.

    Raises :class:`DownloadError` for a folder that is not empty and has none, or one of another source.
    """

    def __init__(self, folder: Path, source: str) -> None:
        self.folder = folder
        self._path = folder / MANIFEST
        self._content: dict[str, Any] = {"source": source, "files": {}}
        if self._path.is_file():
            self._content |= parse_json(self._path, read_bytes(self._path))
        elif folder.exists() and not all(_is_unfinished(path) for path in folder.iterdir()):
            raise DownloadError(
                f"{folder} holds files that were not downloaded by this command; use another --models_dir"
            )
        if self._content["source"] != source or not isinstance(self._content["files"], dict):
            raise DownloadError(f"{folder} holds a download from {self._content['source']}; use another --models_dir")

    def has(self, name: str) -> bool:
        """Whether the file is there as it was downloaded. Raises :class:`DownloadError` if it is there and is not."""
        path = self.folder / name
        if not path.is_file():
            return False
        if sha256_of(path) != self._content["files"].get(name):
            raise DownloadError(f"{path} has changed since it was downloaded; remove it to get it again")
        return True

    def add(self, name: str, sha256: str | None = None) -> None:
        """Record a file that has just come."""
        self._content["files"][name] = sha256 or sha256_of(self.folder / name)
        temporary = self._path.with_name(f".{MANIFEST}.partial")
        temporary.write_text(json.dumps(self._content, indent=2) + "\n", encoding="utf-8")
        temporary.replace(self._path)


def _is_unfinished(path: Path) -> bool:
    """Whether it is what an interrupted download leaves, ours or the hub client's."""
    return path.suffix == ".partial" or path.name == ".cache"


def _from_openai(size: str, manifest: _Manifest, progress: FileProgress) -> None:
    base = os.environ.get(OPENAI_URL_VARIABLE, OPENAI_URL).rstrip("/")
    for name, sha256 in _OPENAI_FILES.items():
        if not manifest.has(name):
            fetch(f"{base}/{size}/{name}", manifest.folder / name, sha256=sha256, progress=progress(name))
            manifest.add(name, sha256)


def _from_hub(repository: str, manifest: _Manifest) -> None:
    missing = [name for name in _HUB_FILES if not manifest.has(name)]
    if missing:
        extras = [name for name in _HUB_EXTRAS if not manifest.has(name)]
        for path in _hub_files(repository, [*extras, *missing], manifest.folder):
            manifest.add(path.name)


def _hub_files(repository: str, names: list[str], folder: Path | None) -> Iterator[Path]:
    """Get files into ``folder``, or into the hub's cache, one after the other; extras that are not there are left out.

    The weights are compared with the SHA-256 that the hub states.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    # asked first, because without a network this fails at once, and a download after half a minute of trying
    with _hub_errors(repository, HUB_WEIGHTS):
        sha256 = get_hf_file_metadata(hf_hub_url(repository, HUB_WEIGHTS)).etag or ""
    for name in names:
        with _hub_errors(repository, name):
            try:
                path = Path(hf_hub_download(repository, name, local_dir=folder))
            except EntryNotFoundError as error:
                if name not in _HUB_EXTRAS or isinstance(error, LocalEntryNotFoundError):
                    raise
                continue
        if name == HUB_WEIGHTS and len(sha256) == 64 and sha256_of(path) != sha256:
            path.resolve().unlink()  # in the cache it is a link
            path.unlink(missing_ok=True)
            raise DownloadError(f"{name} of {repository} came with another sha256 than {sha256}; try again")
        yield path


@contextmanager
def _hub_errors(repository: str, name: str) -> Iterator[None]:
    """Whatever the hub's client raises as one line: the classes are httpx's or requests', as its version wants it."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DownloadError(
            f"cannot get {name} of {repository} from the Hugging Face hub ({reason}); "
            "is this machine online? `--source openai` is another place, `tales` needs none"
        ) from None


def _check(folder: Path) -> None:
    """Open what has come; TensorFlow's files carry a checksum of each tensor, which reading compares."""
    from gpt2lab.weights.find import open_path

    try:
        checkpoint = open_path(folder)
        if checkpoint.format == "openai":
            for name in checkpoint.tensors:
                checkpoint.tensors[name]
    except CheckpointError as error:
        raise DownloadError(f"what was downloaded is not a usable model: {error}") from None
