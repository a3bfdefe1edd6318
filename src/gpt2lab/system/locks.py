"""One process at a time writes into a folder: two would take each other's files for their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType

from gpt2lab.errors import UsageError

if sys.platform != "win32":
    import fcntl


class Hold:
    """Folders that are this process's while entered. The system lets go of them however the process ends."""

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
        """Hold ``folder`` if it is there and the file system can. Raises :class:`UsageError` if another has it."""
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
            raise UsageError(f"another process writes into {folder}: wait for it, or give another name") from None
        except OSError:
            pass  # a file system without locks
        finally:
            if descriptor >= 0:
                os.close(descriptor)


def is_held(folder: Path) -> bool | None:
    """Whether some process holds ``folder``, asked without disturbing who wants to; None where that cannot be told.

    False is what a file system that numbers its files otherwise than its locks would say, too.
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
