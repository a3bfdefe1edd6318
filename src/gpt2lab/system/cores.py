"""How many CPU cores this process may use: those it may run on, and no more than its container's share of their time.

Linux's control groups of both versions are asked: the process's own and every one above it. Other systems tell the
number of cores alone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator

_CGROUPS = "/sys/fs/cgroup"
_OWN_CGROUPS = "/proc/self/cgroup"
_CPUS = "/sys/devices/system/cpu"


def logical_cores() -> int:
    """Cores that this process may use at once, at least 1; each hyper-thread of a core counts."""
    return _within_quota(len(_allowed()))


def physical_cores() -> int:
    """Cores that this process may use at once, at least 1; all hyper-threads of a core count once."""
    return _within_quota(len({_siblings(cpu) for cpu in _allowed()}))


def _allowed() -> Collection[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)


def _siblings(cpu: int) -> str:
    """The hyper-threads of the core that ``cpu`` is one of."""
    try:
        return _read(f"{_CPUS}/cpu{cpu}/topology/thread_siblings_list")
    except OSError:
        return str(cpu)


def _within_quota(cores: int) -> int:
    return max(1, math.ceil(min(cores, *_quotas())))


def _quotas() -> Iterator[float]:
    """CPUs' worth of time that each control group grants, infinity where one does not limit it."""
    own = {"": "/", "cpu": "/"}  # by controller, which version 2 does not name
    try:
        for line in _read(_OWN_CGROUPS).splitlines():
            _, controllers, path = line.split(":", 2)
            own.update((name, path) for name in controllers.split(",") if name in own)
    except (OSError, ValueError):
        pass  # the groups at the top are asked all the same
    for group in _upwards(own[""]):
        yield _quota(f"{_CGROUPS}{group}/cpu.max")
    for group in _upwards(own["cpu"]):
        yield _quota(f"{_CGROUPS}/cpu{group}/cpu.cfs_quota_us", f"{_CGROUPS}/cpu{group}/cpu.cfs_period_us")


def _upwards(group: str) -> Iterator[str]:
    """``/a/b``, ``/a`` and the top, which a container may see as its own group in place of the path that it is told."""
    while group.strip("/"):
        yield group
        group = group.rpartition("/")[0]
    yield ""


def _quota(*files: str) -> float:
    """Microseconds of processor time over those of the period, which the files hold one after the other."""
    try:
        quota, period = " ".join(map(_read, files)).split()
        cpus = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # there is no such group, or it says "max"
        return math.inf
    return cpus if cpus > 0 else math.inf  # version 1 says -1


def _read(file: str) -> str:
    with open(file, encoding="utf-8", errors="replace") as opened:  # noqa: PTH123 (start-up time: pathlib is slower)
        return opened.read()
