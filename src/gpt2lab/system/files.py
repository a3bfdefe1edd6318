"""Files read at any position by several threads, and names for libraries that take only UTF-8."""

from __future__ import annotations

import mmap
import os
import sys
import threading
import weakref
from pathlib import Path
from typing import IO

from gpt2lab.system.paths import printable

_BINARY = getattr(os, "O_BINARY", 0)  # Windows would end a file at its first Ctrl-Z


class OpenFile:
    """A file that is open for reading until this object is freed. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | _BINARY)
        weakref.finalize(self, os.close, self._descriptor)
        self._moving = threading.Lock()

    @property
    def size(self) -> int:
        """The file's size in bytes now."""
        return os.fstat(self._descriptor).st_size

    def map(self) -> mmap.mmap:
        """Return a map of the whole file. Raises ValueError for an empty one."""
        return mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)

    def read_at(self, start: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``start``: fewer at the end of the file, and of several gigabytes.

        Windows reads only at the current position, so one thread at a time reads there.
        """
        if sys.platform == "win32":
            with self._moving:
                os.lseek(self._descriptor, start, os.SEEK_SET)
                return os.read(self._descriptor, size)
        return os.pread(self._descriptor, size, start)


def utf8_name(path: Path, file: IO[bytes]) -> Path | str:
    """Return a name of ``path``, which is open as ``file``, that can be written in UTF-8.

    On Windows every name can be.
    """
    return path if printable(path) == str(path) else f"/dev/fd/{file.fileno()}"
