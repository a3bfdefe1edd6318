"""How much memory this machine has to spare."""

from __future__ import annotations

import os
from pathlib import Path

_UNKNOWN = 2**32


def available_memory() -> int:
    """Bytes that this process may still take without others being swapped out; 4 GiB where the system does not tell.

    Within a container that has a limit of its own, at most what is left of that.
    """
    limit, used = _number("/sys/fs/cgroup/memory.max"), _number("/sys/fs/cgroup/memory.current")
    left = max(0, limit - used) if limit is not None and used is not None else None
    return min(bytes for bytes in (_of_machine(), left) if bytes is not None)


def _of_machine() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return _UNKNOWN


def _number(path: str) -> int | None:
    """The number in a file; None if there is none, or ``max``."""
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
