"""Locks that let only one process at a time write into a folder; two would mistake each other's files for their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType

from gpt2lab.errors import UsageError

if sys.platform != "win32":
    import fcntl


class Hold:
    """Locks on folders, held while entered. The system releases them however the process ends."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, int], int] = {}

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()

    def take(self, folder: Path) -> None:
        """Lock ``folder`` if it exists and can be locked. Raises :class:`UsageError` if another process holds it."""
        if sys.platform == "win32":
            return
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except OSError:
            return
        status = os.fstat(descriptor)
        key = status.st_dev, status.st_ino
        try:
            if key not in self._held:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._held[key], descriptor = descriptor, -1
        except BlockingIOError:
            raise UsageError(
                f"another process is writing into {folder}: wait for it to finish, or give another name"
            ) from None
        except OSError:
            pass  # a file system without locks
        finally:
            if descriptor >= 0:
                os.close(descriptor)


def is_held(folder: Path) -> bool | None:
    """Return whether some process holds ``folder``, without taking the lock itself; None if that is unknown.

    Also returns False on a file system that numbers its locks and its files differently.
    """
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
