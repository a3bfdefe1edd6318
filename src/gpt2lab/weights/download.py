"""Download the released sizes from the Hugging Face hub (through ``huggingface_hub``) or OpenAI's public bucket.

Every file's SHA-256 is recorded beside it in ``download.json``; a second download checks against that and fetches
only the missing files. Files that this module did not download are never replaced. Reads weights only to check them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpt2lab.config import RELEASED_SIZES, canonical_size, names_of_size
from gpt2lab.errors import DownloadError
from gpt2lab.system.atomic import PARTIAL, write_file
from gpt2lab.system.hashing import sha256_of
from gpt2lab.system.locks import Hold
from gpt2lab.weights.checkpoint import parse_json, read_bytes
from gpt2lab.weights.fetch import Progress, fetch
from gpt2lab.weights.hub import HUB_EXTRAS, HUB_FILES, check_download, hub_files
from gpt2lab.weights.vocabulary import GPT2_ENCODER_SHA256, GPT2_MERGES_SHA256

SOURCES = ("huggingface", "openai")
MANIFEST = "download.json"

OPENAI_URL = "https://openaipublic.blob.core.windows.net/gpt-2/models"
OPENAI_URL_VARIABLE = "GPT2LAB_OPENAI_URL"
"""Environment variable that overrides :data:`OPENAI_URL`, for example with a mirror's address."""

_OPENAI_FILES = {  # small ones first: a wrong address shows at once
    "checkpoint": None,
    "hparams.json": None,
    "encoder.json": GPT2_ENCODER_SHA256,
    "vocab.bpe": GPT2_MERGES_SHA256,
    "model.ckpt.index": None,
    "model.ckpt.meta": None,
    "model.ckpt.data-00000-of-00001": None,
}

FileProgress = Callable[[str], Progress]
"""A callback that gets a file's name when its download starts and returns the callback for its progress."""


def download(
    size: str, *, source: str = "huggingface", models_dir: Path = Path("models"), progress: FileProgress | None = None
) -> Path:
    """Download a released size to ``models_dir/<size>``, check it and return that folder.

    ``size`` is a name of ``RELEASED_SIZES`` or an alias of one. Files that are already there and unchanged are not
    fetched again. Raises :class:`DownloadError` if the download fails; the next call resumes it. Raises
    :class:`~gpt2lab.errors.UsageError` if another process is downloading to the same folder.
    """
    name = canonical_size(size)
    if name is None:
        raise DownloadError(f"unknown size {size!r}; released sizes are {', '.join(RELEASED_SIZES)}")
    if source not in SOURCES:
        raise DownloadError(f"unknown source {source!r}; sources are {', '.join(SOURCES)}")
    folders = [models_dir / alias for alias in names_of_size(name)]
    folder = next((there for there in folders if there.exists()), folders[0])
    try:
        with Hold() as hold:
            hold.take(folder, create=True)
            manifest = _Manifest(folder, source)
            if source == "openai":
                _from_openai(name, manifest, progress or (lambda file: lambda done, total: None))
            else:
                _from_hub(name, manifest)
    except OSError as error:
        raise DownloadError(f"cannot write to {folder}: {error.strerror or error}") from None
    check_download(folder)
    return folder


class _Manifest:
    """A folder's ``download.json``: the files downloaded to it, their source and their SHA-256.

    Raises :class:`DownloadError` if a non-empty folder has none, or one that names another source.
    """

    def __init__(self, folder: Path, source: str) -> None:
        self.folder = folder
        self._path = folder / MANIFEST
        self._content: dict[str, Any] = {"source": source, "files": {}}
        if self._path.is_file():
            self._content |= parse_json(self._path, read_bytes(self._path))
        elif folder.exists() and not all(_is_unfinished(path) for path in folder.iterdir()):
            raise DownloadError(f"{folder} has files that this command did not download; use another --models_dir")
        if self._content["source"] != source or not isinstance(self._content["files"], dict):
            raise DownloadError(f"{folder} holds a download from {self._content['source']}; use another --models_dir")

    def has(self, name: str) -> bool:
        """Return whether the file is there, as downloaded. Raises :class:`DownloadError` if it was changed since."""
        path = self.folder / name
        if not path.is_file():
            return False
        if sha256_of(path) != self._content["files"].get(name):
            raise DownloadError(f"{path} has changed since it was downloaded; delete it to download it again")
        return True

    def add(self, name: str, sha256: str | None = None) -> None:
        """Record a file that was just downloaded."""
        self._content["files"][name] = sha256 or sha256_of(self.folder / name)
        write_file(self._path, (json.dumps(self._content, indent=2) + "\n").encode(), sync=False)


def _is_unfinished(path: Path) -> bool:
    """Return whether an interrupted download, ours or the hub client's, left ``path`` behind."""
    return path.name.endswith(PARTIAL) or path.name == ".cache"


def _from_openai(size: str, manifest: _Manifest, progress: FileProgress) -> None:
    base = os.environ.get(OPENAI_URL_VARIABLE, OPENAI_URL).rstrip("/")
    for name, sha256 in _OPENAI_FILES.items():
        if not manifest.has(name):
            fetch(f"{base}/{size}/{name}", manifest.folder / name, sha256=sha256, progress=progress(name))
            manifest.add(name, sha256)


def _from_hub(size: str, manifest: _Manifest) -> None:
    missing = [name for name in HUB_FILES if not manifest.has(name)]
    if missing:
        extras = [name for name in HUB_EXTRAS if not manifest.has(name)]
        for path in hub_files(size, [*extras, *missing], manifest.folder):
            manifest.add(path.name)
