"""The memory left to a container, read from files like those of Linux's control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt2lab.system import memory

V2 = ("memory.max", "memory.current", "memory.stat", "inactive_file")
V1 = (
    "memory/memory.limit_in_bytes",
    "memory/memory.usage_in_bytes",
    "memory/memory.stat",
    "total_inactive_file",
)


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "memory").mkdir()
    monkeypatch.setattr(memory, "_CGROUPS", str(tmp_path))
    monkeypatch.setattr(memory, "_of_machine", lambda: 10_000)
    return tmp_path


@pytest.mark.parametrize(("limit", "used", "statistics", "cached"), [V2, V1])
def test_cached_files_do_not_count_as_used(groups: Path, limit: str, used: str, statistics: str, cached: str) -> None:
    (groups / limit).write_text("5000\n")
    (groups / used).write_text("4500\n")
    assert memory.available_memory() == 500
    (groups / statistics).write_text(f"inactive_anon 7\n{cached} 1500\nactive_file 9\n")
    assert memory.available_memory() == 2000


@pytest.mark.parametrize(("limit", "left"), [("max", 10_000), ("9223372036854771712", 10_000), ("4000", 0)])
def test_no_more_is_left_than_the_machine_has_and_never_less_than_nothing(groups: Path, limit: str, left: int) -> None:
    (groups / "memory.max").write_text(limit)
    (groups / "memory.current").write_text("4500")
    assert memory.available_memory() == left


@pytest.mark.parametrize("statistics", ["", "inactive_file\n", "inactive_file many\n", "inactive_file 9999\n"])
def test_statistics_that_make_no_sense_do_no_harm(groups: Path, statistics: str) -> None:
    (groups / "memory.max").write_text("5000")
    (groups / "memory.current").write_text("4500")
    (groups / "memory.stat").write_text(statistics)
    assert memory.available_memory() in (500, 5000)


def test_without_control_groups_the_machine_counts(groups: Path) -> None:
    assert memory.available_memory() == 10_000
