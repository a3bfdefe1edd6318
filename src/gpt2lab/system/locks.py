"""Locks that let only one process at a time write into a folder; two would mistake each other's files for their own.

On Windows, nothing is locked.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from gpt2lab.errors import UsageError


class Hold:
    """Locks on folders, held while entered. The system releases them however the process ends."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, int], int] = {}
        self._created: list[Path] = []

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the folders that :meth:`take` created, if they are still empty, then release all locks."""
        for folder in reversed(self._created):
            with suppress(OSError):
                folder.rmdir()
        self._created.clear()
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()

    def take(self, folder: Path, *, create: bool = False) -> None:
        """Lock ``folder`` if it exists and can be locked; with ``create``, first create it and its parents.

        Raises :class:`UsageError` if another process holds it, and OSError if it cannot be created.
        """
        while True:
            if create:
                self._create(folder)
            if self._try(folder):
                return

    def _create(self, folder: Path) -> None:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        self._created += reversed(missing)

    def _try(self, folder: Path) -> bool:
        """Lock ``folder`` if possible; return False if it was renamed or removed meanwhile."""
        if sys.platform == "win32":  # it opens no folders
            return True
        import fcntl

        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except OSError:
            return True
        try:
            key = _identity(os.fstat(descriptor))
            if key not in self._held:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not folder.exists() or _identity(folder.stat()) != key:
                    return False
                self._held[key], descriptor = descriptor, -1
        except BlockingIOError:
            raise UsageError(
                f"another process or run is writing into {folder}: wait for it to finish, stop it, or give another name"
            ) from None
        except OSError:
            pass  # a file system without locks
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        return True


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def is_held(folder: Path) -> bool | None:
    """Return whether some process holds ``folder``, without taking the lock itself; None if that is unknown.

    Also returns False on a file system that numbers its locks and its files differently.
    """
    if sys.platform == "win32":
        return None
    try:
        status = folder.stat()
        locks = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return None
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    return any(
        "FLOCK" in line and "WRITE" in line and f"{device}:{status.st_ino}" in line.split()
        for line in locks.splitlines()
    )
