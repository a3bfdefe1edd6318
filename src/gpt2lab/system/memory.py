"""How much memory this machine has to spare, and how much this process has taken."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_UNKNOWN = 2**32

_CGROUPS = "/sys/fs/cgroup"
_LIMITS = (  # limit, use, statistics and what they call cached files that nobody has read lately: version 2, then 1
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def available_memory() -> int:
    """Bytes that this process may still take without others being swapped out; 4 GiB where the system does not tell.

    Within a container that has a limit of its own, at most what is left of that.
    """
    return min(bytes for bytes in (_of_machine(), _of_container()) if bytes is not None)


def peak_memory() -> int:
    """Bytes of the largest resident set of this process so far; 0 where the system does not tell."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):  # getrusage counts what the parent had when it began this process
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


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


def _of_container() -> int | None:
    """What Linux's control groups leave of their limit, None if there is none.

    Files that the system has cached count as used, but give way to whoever needs memory.
    """
    for limit_file, used_file, statistics, cached in _LIMITS:
        limit, used = _number(limit_file), _number(used_file)
        if limit is not None and used is not None:
            return max(0, limit - max(0, used - _statistic(statistics, cached)))
    return None


def _number(file: str) -> int | None:
    """The number in a file; None if there is none, or ``max``."""
    try:
        return int(Path(_CGROUPS, file).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _statistic(file: str, name: str) -> int:
    """The number behind ``name`` in a file of such lines; 0 if it is not there."""
    try:
        lines = Path(_CGROUPS, file).read_text(encoding="ascii").splitlines()
        return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), 0)
    except (OSError, ValueError, IndexError):
        return 0
