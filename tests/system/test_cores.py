"""The number of cores for a process, read from files like Linux's.

The machine of the tests has 4 cores of 2 hyper-threads each.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gpt2lab.system import cores
from gpt2lab.system.cores import logical_cores, physical_cores

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes a file: ``own`` (the process's groups), or one below ``groups`` or ``cpus``."""
    monkeypatch.setattr(cores, "_CGROUPS", str(tmp_path / "groups"))
    monkeypatch.setattr(cores, "_OWN_CGROUPS", str(tmp_path / "own"))
    monkeypatch.setattr(cores, "_CPUS", str(tmp_path / "cpus"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    for cpu in range(8):
        write(f"cpus/cpu{cpu}/topology/thread_siblings_list", f"{cpu % 4},{cpu % 4 + 4}\n")
    return write


def test_threads_of_a_core_count_once_among_physical_cores(write: Write) -> None:
    assert (logical_cores(), physical_cores()) == (8, 4)


def test_only_cores_that_the_process_may_run_on_count(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 4}, raising=False)
    assert (logical_cores(), physical_cores()) == (3, 2)


def test_without_affinity_and_topology_every_core_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("_CGROUPS", "_OWN_CGROUPS", "_CPUS"):
        monkeypatch.setattr(cores, name, str(tmp_path / "none"))
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert (logical_cores(), physical_cores()) == (6, 6)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert (logical_cores(), physical_cores()) == (1, 1)


@pytest.mark.parametrize(
    ("quota", "granted"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("100001 100000", 2),
        ("50000 100000", 1),
        ("1000 1000000", 1),
        ("6400000 100000", 8),
        ("0 100000", 8),
        ("100000 0", 8),
        ("", 8),
        ("many", 8),
    ],
)
def test_a_container_grants_whole_cores_of_its_quota(write: Write, quota: str, granted: int) -> None:
    write("groups/cpu.max", f"{quota}\n")
    assert logical_cores() == granted
    assert physical_cores() == min(4, granted)


def test_a_container_sees_its_own_group_at_the_top_whatever_path_it_is_told(write: Write) -> None:
    write("own", "0::/system.slice/docker-abc.scope\n")
    write("groups/cpu.max", "300000 100000\n")
    assert logical_cores() == 3


@pytest.mark.parametrize(
    ("inner", "outer", "granted"),
    [("500000", "200000", 2), ("300000", "max", 3), ("max", "400000", 4), ("max", "max", 8)],
)
def test_the_smallest_quota_of_nested_groups_counts(write: Write, inner: str, outer: str, granted: int) -> None:
    write("own", "0::/machine.slice/pod/container\n")
    write("groups/machine.slice/cpu.max", f"{outer} 100000\n")
    write("groups/machine.slice/pod/container/cpu.max", f"{inner} 100000\n")
    assert logical_cores() == granted


def test_quotas_of_other_groups_do_not_count(write: Write) -> None:
    write("own", "0::/mine\n")
    write("groups/other/cpu.max", "100000 100000\n")
    write("groups/mine/child/cpu.max", "100000 100000\n")
    assert logical_cores() == 8


@pytest.mark.parametrize(("quota", "granted"), [("-1", 8), ("250000", 3), ("50000", 1)])
def test_groups_of_version_1_are_asked(write: Write, quota: str, granted: int) -> None:
    write("groups/cpu/cpu.cfs_quota_us", f"{quota}\n")
    write("groups/cpu/cpu.cfs_period_us", "100000\n")
    assert logical_cores() == granted


def test_nested_groups_of_version_1_are_found_by_their_controller(write: Write) -> None:
    write("own", "11:memory:/elsewhere\n4:cpuacct,cpu:/docker/abc\n0::/\n")
    for group, quota in (("docker", 500_000), ("docker/abc", 200_000), ("elsewhere", 100_000)):
        write(f"groups/cpu/{group}/cpu.cfs_quota_us", f"{quota}\n")
        write(f"groups/cpu/{group}/cpu.cfs_period_us", "100000\n")
    assert logical_cores() == 2


def test_a_list_of_groups_that_makes_no_sense_does_no_harm(write: Write) -> None:
    write("own", "damaged\n")
    write("groups/cpu.max", "200000 100000\n")
    assert logical_cores() == 2
