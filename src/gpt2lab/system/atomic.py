"""Files and folders that are whole or not there.

Everything is written beside its place, under a hidden name that ends with :data:`PARTIAL`, and renamed at the end. An
error, a full disk or Ctrl-C removes what was begun and leaves what was there before. A kill may leave a file of such a
name behind; whoever keeps the folder sweeps it up. A link in the place is replaced, not followed, and what is new has
the permissions of any new file. ``sync`` says whether the disk has it before it gets its name: without that a power cut
can leave the name on an empty file. All functions raise OSError. Knows no format.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

PARTIAL = ".partial"


@contextmanager
def new_file(path: Path, *, sync: bool) -> Iterator[IO[bytes]]:
    """A binary file that becomes ``path``, in place of a file there, when the block ends without an error.

    Folders above it are made. Several processes may write the same ``path``: that of the last to end stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        with temporary.open("xb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
        if sync:
            _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: Path, data: bytes, *, sync: bool) -> None:
    """Make ``path`` of ``data``, as :func:`new_file` does."""
    with new_file(path, sync=sync) as file:
        file.write(data)


@contextmanager
def new_folder(path: Path, *, sync: bool, partial: Path | None = None, aside: Path | None = None) -> Iterator[Path]:
    """A folder that becomes ``path``, in place of an empty one, when the block ends without an error.

    Folders above it are made. ``partial`` is its name until then, for callers that look for what a kill left. With
    ``aside`` a folder that is not empty is replaced too: it is renamed to that just before, for the caller to remove,
    and gets its name back if the new one cannot have it.
    """
    partial = partial or _beside(path)
    partial.mkdir(parents=True)
    try:
        yield partial
        if sync:
            _sync_files(partial)
        if aside is not None and path.exists():
            path.replace(aside)
        partial.replace(path)
        if sync:
            _sync_folder(path.parent)
    finally:
        if aside is not None and aside.exists() and not path.exists():
            aside.replace(path)
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def new_files(folder: Path, *, sync: bool) -> Iterator[Path]:
    """A folder whose files are moved into ``folder``, which is there, when the block ends without an error.

    Each is moved in one step, in the order of their names, in place of a file of the same name; others stay.
    """
    partial = _beside(folder / "files")
    partial.mkdir()
    try:
        yield partial
        if sync:
            _sync_files(partial)
        for file in sorted(partial.iterdir()):
            file.replace(folder / file.name)
        if sync:
            _sync_folder(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A name that nobody else uses."""
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}{PARTIAL}")


def _sync_files(folder: Path) -> None:
    """Have the files in a folder, and their names, on the disk."""
    for path in folder.iterdir():
        with path.open("r+b") as file:
            os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system lets us."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
