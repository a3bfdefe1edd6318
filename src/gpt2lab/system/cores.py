"""The number of CPU cores that this process may use: its allowed cores, limited by its container's share of CPU time.

On Linux, both versions of control groups are read: the process's own group and all its parents. Other systems report
only the number of cores.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator

_CGROUPS = "/sys/fs/cgroup"
_OWN_CGROUPS = "/proc/self/cgroup"
_CPUS = "/sys/devices/system/cpu"


def logical_cores() -> int:
    """Return the number of cores that this process may use at once, at least 1; each hyper-thread counts."""
    return _within_quota(len(_allowed()))


def physical_cores() -> int:
    """Return the number of cores that this process may use at once, at least 1; a core's hyper-threads count once."""
    return _within_quota(len({_siblings(cpu) for cpu in _allowed()}))


def _allowed() -> Collection[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)


def _siblings(cpu: int) -> str:
    """Return the list of hyper-threads of the core to which ``cpu`` belongs."""
    try:
        return _read(f"{_CPUS}/cpu{cpu}/topology/thread_siblings_list")
    except OSError:
        return str(cpu)


def _within_quota(cores: int) -> int:
    return max(1, math.ceil(min(cores, *_quotas())))


def _quotas() -> Iterator[float]:
    """Yield the CPU time that each control group grants, in CPUs; infinity for a group without a limit."""
    own = {"": "/", "cpu": "/"}  # by controller; version 2 names none
    try:
        for line in _read(_OWN_CGROUPS).splitlines():
            _, controllers, path = line.split(":", 2)
            own.update((name, path) for name in controllers.split(",") if name in own)
    except (OSError, ValueError):
        pass  # the top groups are still read
    for group in _upwards(own[""]):
        yield _quota(f"{_CGROUPS}{group}/cpu.max")
    for group in _upwards(own["cpu"]):
        yield _quota(f"{_CGROUPS}/cpu{group}/cpu.cfs_quota_us", f"{_CGROUPS}/cpu{group}/cpu.cfs_period_us")


def _upwards(group: str) -> Iterator[str]:
    """Yield ``/a/b``, ``/a`` and the top, where a container may find its own group instead of at the reported path."""
    while group.strip("/"):
        yield group
        group = group.rpartition("/")[0]
    yield ""


def _quota(*files: str) -> float:
    """Return CPU microseconds divided by the period's microseconds; the files contain these two, in this order."""
    try:
        quota, period = " ".join(map(_read, files)).split()
        cpus = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such group, or its limit is "max"
        return math.inf
    return cpus if cpus > 0 else math.inf  # -1 means no limit in version 1


def _read(file: str) -> str:
    with open(file, encoding="utf-8", errors="replace") as opened:  # noqa: PTH123 (start-up time: pathlib is slower)
        return opened.read()
