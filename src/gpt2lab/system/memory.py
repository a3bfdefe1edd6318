"""The memory that this machine can spare, and the memory that this process has used."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

_UNKNOWN = 2**32
_M_MMAP_THRESHOLD = -3  # from glibc's malloc.h
_NORESERVE = 0x4000 if sys.platform == "linux" else 0  # mmap.MAP_NORESERVE in later Pythons

_CGROUPS = "/sys/fs/cgroup"
_LIMITS = (  # limit, use, statistics and their name for cached files not read lately: version 2, then 1
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def available_memory() -> int:
    """Return the bytes that this process can still use without causing swapping; 4 GiB if the system reports none.

    A container's limit caps the result at what is left of it.
    """
    return min(bytes for bytes in (_of_machine(), _of_container()) if bytes is not None)


def map_blocks(least: int) -> None:
    """Let glibc give every block of ``least`` bytes or more its own mapping, which is returned when it is freed.

    Otherwise glibc raises its limit to the largest block freed so far, and blocks of many sizes leave holes in the
    heap. Does nothing without glibc, or if the user has set one of glibc's variables ``MALLOC_…``.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    import ctypes  # only here: every start imports this module

    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # musl has none
        library.mallopt(_M_MMAP_THRESHOLD, least)


def reserve_pages(size: int) -> mmap.mmap:
    """Return ``size`` bytes of zeros, a multiple of the page size, that take memory only where they are written to.

    Windows sets memory aside for all of them. Raises OSError or OverflowError if there is no room for them.
    """
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)


def return_pages(pages: mmap.mmap, start: int, end: int) -> None:
    """Give the system the memory of the pages from ``start`` to ``end``, whose content is lost; not on Windows."""
    if sys.platform != "win32":
        pages.madvise(mmap.MADV_DONTNEED, start, end - start)


def peak_memory() -> int:
    """Return the bytes of this process's largest resident set so far; 0 if the system does not report it."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):  # getrusage includes the parent's size at the fork
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _of_machine() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    if sys.platform == "win32":
        return _UNKNOWN
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return _UNKNOWN


def _of_container() -> int | None:
    """Return what is left of the limit of Linux's control groups, None if there is none.

    Cached files count as used there, but the system frees them on demand, so they are subtracted.
    """
    for limit_file, used_file, statistics, cached in _LIMITS:
        limit, used = _number(limit_file), _number(used_file)
        if limit is not None and used is not None:
            return max(0, limit - max(0, used - _statistic(statistics, cached)))
    return None


def _number(file: str) -> int | None:
    """Return the number in a file; None if there is none, or ``max``."""
    try:
        return int(Path(_CGROUPS, file).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _statistic(file: str, name: str) -> int:
    """Return the number after ``name`` in a file of such lines; 0 if the name is missing."""
    try:
        lines = Path(_CGROUPS, file).read_text(encoding="ascii").splitlines()
        return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), 0)
    except (OSError, ValueError, IndexError):
        return 0
