"""The memory left to a container, read from files like those of Linux's control groups."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import needs
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


@needs.mark("Linux")
def test_a_large_block_is_returned_when_it_is_freed_whatever_was_freed_before():
    script = (
        "import ctypes, sys\n"
        "from gpt2lab.system.memory import map_blocks\n"
        "map_blocks(1 << 17) if sys.argv[1:] else None\n"
        "large = bytes(16 << 20)\n"
        "del large\n"  # without a limit, blocks of up to 16 MB are now taken from the heap
        "if not hasattr(ctypes.CDLL(None), 'mallinfo2'): sys.exit('no glibc')\n"
        "Info = type('Info', (ctypes.Structure,), {'_fields_': [(str(n), ctypes.c_size_t) for n in range(10)]})\n"
        "info = ctypes.CDLL(None).mallinfo2\n"
        "info.restype = Info\n"
        "before = getattr(info(), '4')\n"
        "block = bytes(1 << 20)\n"
        "print(getattr(info(), '4') - before >= 1 << 20)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", script]
    limited, plain = (
        subprocess.run([*command, *more], env=environment, capture_output=True, text=True) for more in (["limit"], [])
    )
    if "no glibc" not in limited.stderr:
        assert (limited.stdout, plain.stdout) == ("True\n", "False\n"), limited.stderr
