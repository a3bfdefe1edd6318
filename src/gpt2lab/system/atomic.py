"""Files and folders that appear only when complete.

Everything is written next to its destination, under a hidden name that ends with :data:`PARTIAL`, and renamed at the
end. After an error (such as a full disk) or Ctrl-C, the partial file is removed and the old one is unchanged; only
:func:`new_files`, which replaces one file at a time, may have replaced some. A kill may leave a file with such a name;
the code that manages the folder removes it. A link at the destination is replaced, not followed, and the new file has
the permissions of any new file. With ``sync`` the data is on disk before the rename; without it, a power cut can leave
an empty file under the name. All functions raise OSError on failure. This module knows no format.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

PARTIAL = ".gpt2lab.partial"
"""The end of every unfinished file's name, which marks it as gpt2lab's own."""

_DENIED, _IN_USE = 5, 32  # of Windows: ERROR_ACCESS_DENIED and ERROR_SHARING_VIOLATION
_PATIENCE = 2.0  # seconds
_PAUSE = 0.05  # seconds


def replace(source: Path, target: Path) -> None:
    """Rename a file or folder, replacing a file or an empty folder of the name ``target``. Raises OSError.

    Windows refuses this for an empty folder, which is then removed first, and while anybody has one of the files open,
    such as a virus scanner that looks at each new file; so it is tried again for two seconds.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            source.replace(target)
            return
        except PermissionError as error:
            if getattr(error, "winerror", None) not in (_DENIED, _IN_USE) or time.monotonic() > deadline:
                raise
        if target.is_dir():
            target.rmdir()
        time.sleep(_PAUSE)


@contextmanager
def new_file(path: Path, *, sync: bool) -> Iterator[IO[bytes]]:
    """Open a binary file that becomes ``path``, replacing any file there, when the block ends without an error.

    Parent folders are created. Several processes may write the same ``path``: the last to finish wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        with temporary.open("xb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        replace(temporary, path)
        if sync:
            _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: Path, data: bytes, *, sync: bool) -> None:
    """Write ``data`` to ``path``, as :func:`new_file` does."""
    with new_file(path, sync=sync) as file:
        file.write(data)


@contextmanager
def new_folder(path: Path, *, sync: bool, partial: Path | None = None, aside: Path | None = None) -> Iterator[Path]:
    """Create a folder that becomes ``path``, replacing an empty one, when the block ends without an error.

    Parent folders are created. ``partial`` is the folder until then, for callers that look for the remains of a kill;
    it may exist already, if it is empty. With ``aside``, a folder that is not empty is replaced too: it is first
    renamed to ``aside``, for the caller to remove, and gets its name back if the new folder cannot take it.
    """
    partial = partial or _beside(path)
    partial.mkdir(parents=True, exist_ok=True)
    if any(partial.iterdir()):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(partial))
    try:
        yield partial
        if sync:
            _sync_files(partial)
        if aside is not None and path.exists():
            replace(path, aside)
        replace(partial, path)
        if sync:
            _sync_folder(path.parent)
    finally:
        if aside is not None and aside.exists() and not path.exists():
            replace(aside, path)
        _remove(partial)


@contextmanager
def new_files(folder: Path, *, sync: bool) -> Iterator[Path]:
    """Create a folder whose files move into the existing ``folder`` when the block ends without an error.

    Each file is renamed in one step, in the order of names, and replaces a file of the same name; others stay.
    """
    partial = _beside(folder / "files")
    partial.mkdir()
    try:
        yield partial
        if sync:
            _sync_files(partial)
        for file in sorted(partial.iterdir()):
            replace(file, folder / file.name)
        if sync:
            _sync_folder(folder)
    finally:
        _remove(partial)


def _beside(path: Path) -> Path:
    """Return a name that nothing else uses."""
    name = path.name[:50]  # a name near the system's limit has no room for more
    return path.with_name(f".{name}.{os.urandom(4).hex()}{PARTIAL}")


def _remove(folder: Path) -> None:
    """Delete a folder as far as possible."""
    from shutil import rmtree  # imports three compression libraries, which would slow down every start

    rmtree(folder, ignore_errors=True)


def _sync_files(folder: Path) -> None:
    """Flush all files in a folder, and their names, to disk."""
    for path in folder.rglob("*"):
        if path.is_dir():
            _sync_folder(path)
        else:
            with path.open("r+b") as file:
                os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, where the system allows it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
