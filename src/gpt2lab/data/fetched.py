"""Fetched files in the cache folder: one folder for each address, with a record of the files that belong to it.

A file is recorded before it is fetched, so the record names every file that may be deleted. This module
knows no protocol.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gpt2lab.errors import DownloadError
from gpt2lab.system.atomic import PARTIAL, write_file
from gpt2lab.system.marks import Deleted, delete, is_plain

RECORD = ".fetched.json"


@contextmanager
def kept(folder: Path, url: str) -> Iterator[Path]:
    """Create the folder of ``url``, lock it for this process and yield it."""
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(_lock_of(folder)):
            folder.mkdir(exist_ok=True)  # another process may have cleared the cache meanwhile
            yield folder
    except OSError as error:
        raise DownloadError(f"cannot store {url} in {folder}: {error.strerror or error}") from error


def read_record(folder: Path) -> dict[str, Any]:
    """Return the recorded files: their paths in ``folder`` → the facts recorded for each."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def write_record(folder: Path, files: Mapping[str, Any]) -> None:
    """Replace the record of ``folder``."""
    write_file(folder / RECORD, json.dumps(files).encode(), sync=False)


def clear(cache: Path) -> list[Deleted]:
    """Delete the recorded files of all folders in ``cache``, except of those that a process is fetching into."""
    from filelock import FileLock, Timeout

    deleted = []
    for folder in sorted(path for path in cache.iterdir() if path.is_dir() and not path.is_symlink()):
        if not is_plain(folder / RECORD):
            continue
        with suppress(Timeout, OSError), FileLock(_lock_of(folder), blocking=False):
            partial = [path.relative_to(folder).as_posix() for path in folder.rglob(f"*{PARTIAL}")]
            deleted += delete(folder, [*read_record(folder), *partial, RECORD])
            folder.rmdir()  # raises if it is not empty
            _lock_of(folder).unlink()
    with suppress(OSError):  # it stays if it is not empty
        cache.rmdir()
    return deleted


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")
