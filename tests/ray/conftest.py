"""The command in this process or in a separate one, small models by path, and an object store in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner, Result

import needs


@pytest.fixture
def gpt2lab() -> Callable[..., Result]:
    """Provide ``gpt2lab(*arguments, input=None)``."""
    from gpt2lab.cli.main import cli

    def run(*arguments: object, input: str | bytes | None = None) -> Result:
        return CliRunner().invoke(cli, [str(argument) for argument in arguments], input=input)

    return run


@pytest.fixture
def start() -> Callable[..., subprocess.Popen]:
    """Provide ``start(*arguments)``: the command in a separate process."""

    def run(*arguments: object, **more) -> subprocess.Popen:
        command = [sys.executable, "-m", "gpt2lab", *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)

    return run


@pytest.fixture
def store():
    """Provide fsspec's ``memory://``, empty."""
    filesystem = fsspec.filesystem("memory")
    for path in filesystem.ls("/", detail=False):
        filesystem.rm(path, recursive=True)
    return filesystem


@pytest.fixture
def prompts(tmp_path) -> Path:
    """Provide ten prompts as JSON lines."""
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Tale {number}"}) + "\n" for number in range(10)))
    return path


@pytest.fixture
def ray_workers() -> Callable[[subprocess.Popen], dict[int, str]]:
    """Provide ``ray_workers(process)``: the process ids of Ray's actors below it, with Ray's names for them."""
    return workers_of


def workers_of(process: subprocess.Popen) -> dict[int, str]:
    """Return the process ids of Ray's actors below ``process``, with Ray's names for them."""
    found, parents = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                found[int(entry.name)] = (entry / "cmdline").read_bytes().split(b"\0")[0].decode()
            except (OSError, ValueError):
                pass

    def is_below(pid: int) -> bool:
        while pid > 1:
            if pid == process.pid:
                return True
            pid = parents.get(pid, 0)
        return False

    return {pid: name for pid, name in found.items() if name.startswith("ray::MapWorker") and is_below(pid)}


@pytest.fixture
def ended() -> Callable[[str], None]:
    """Provide ``ended(stderr)``, which skips the test if the machine was too busy to start Ray in its 30 seconds."""

    def check(errors: str) -> None:
        if "timed out during startup" in errors:
            needs.check("a machine that starts Ray within its 30 seconds")

    return check
