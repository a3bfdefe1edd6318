"""Download models from the Hugging Face hub (through ``huggingface_hub``), the released sizes also from OpenAI.

Every file's SHA-256 is recorded beside it in ``download.json``; a second download checks against that and fetches
only the missing files. Files that this module did not download are never replaced. Reads weights only to check them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from typing import Any

from gpt2lab.config import RELEASED_SIZES, canonical_size, names_of_size
from gpt2lab.errors import CheckpointError, DownloadError
from gpt2lab.system.atomic import PARTIAL, write_file
from gpt2lab.system.hashing import sha256_of
from gpt2lab.system.locks import Hold
from gpt2lab.weights.checkpoint import parse_json, read_bytes
from gpt2lab.weights.fetch import Progress, fetch
from gpt2lab.weights.hub import HubModel, check_download, hub_files, hub_model
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
    name: str, *, source: str = "huggingface", models_dir: Path = Path("models"), progress: FileProgress | None = None
) -> Path:
    """Download a model into a folder of its name under ``models_dir``, check it and return that folder.

    ``name`` is a name of ``RELEASED_SIZES`` or an alias of one, or, from the hub, ``USER/MODEL`` or
    ``USER/MODEL@REVISION``. Files that are already there and unchanged are not fetched again. Raises
    :class:`DownloadError` if the download fails; the next call resumes it. Raises :class:`CheckpointError` if it is no
    model that gpt2lab runs, and :class:`~gpt2lab.errors.UsageError` if another process is downloading to the same
    folder.
    """
    size, model = canonical_size(name), hub_model(name)
    if model is None or (source == "openai" and size is None):
        hub = "" if source == "openai" else "; on the hub, a model is called USER/MODEL"
        raise DownloadError(f"unknown size {name!r}; released sizes are {', '.join(RELEASED_SIZES)}{hub}")
    if source not in SOURCES:
        raise DownloadError(f"unknown source {source!r}; sources are {', '.join(SOURCES)}")
    folders = [models_dir / alias for alias in (names_of_size(size) if size else [name])]
    folder = next((there for there in folders if there.exists()), folders[0])
    try:
        with Hold() as hold:
            hold.take(folder, create=True)
            manifest = _Manifest(folder, source)
            if source == "openai":
                _from_openai(str(size), manifest, progress or (lambda file: lambda done, total: None))
            else:
                _from_hub(model, manifest)
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
        self._write()

    def unchanged(self) -> list[str]:
        """Return the recorded files that are there. Raises :class:`DownloadError` if one was changed since."""
        return [name for name in self._content["files"] if self.has(name)]

    @property
    def is_complete(self) -> bool:
        """Whether every file that the model needs was recorded."""
        return self._content.get("complete") is True

    def complete(self) -> None:
        """Record that the model needs no other files."""
        self._content["complete"] = True
        self._write()

    def remove(self) -> None:
        """Remove what was fetched, because it is no model; a folder that was created for it disappears with it."""
        for name in self._content["files"]:
            (self.folder / name).unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)
        rmtree(self.folder / ".cache", ignore_errors=True)  # the hub client's notes

    @property
    def n_files(self) -> int:
        """The number of recorded files, there or not."""
        return len(self._content["files"])

    def _write(self) -> None:
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


def _from_hub(model: HubModel, manifest: _Manifest) -> None:
    have = manifest.unchanged()
    if manifest.is_complete and len(have) == manifest.n_files:
        return
    try:
        for path in hub_files(model, manifest.folder, have):
            manifest.add(path.resolve().relative_to(manifest.folder.resolve()).as_posix())
    except CheckpointError:  # no weights were fetched
        manifest.remove()
        raise
    manifest.complete()
