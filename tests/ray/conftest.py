"""The command in this process or in one of its own, small models by path, and an object store in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result


@pytest.fixture
def gpt2lab() -> Callable[..., Result]:
    """``gpt2lab(*arguments, input=None)``."""
    from gpt2lab.cli.main import cli

    def run(*arguments: object, input: str | bytes | None = None) -> Result:
        return CliRunner().invoke(cli, [str(argument) for argument in arguments], input=input)

    return run


@pytest.fixture
def start() -> Callable[..., subprocess.Popen]:
    """``start(*arguments)``: the command in a process of its own."""

    def run(*arguments: object, **more) -> subprocess.Popen:
        command = [sys.executable, "-m", "gpt2lab", *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)

    return run


@pytest.fixture
def store():
    """fsspec's ``memory://``, empty."""
    fsspec = pytest.importorskip("fsspec")
    filesystem = fsspec.filesystem("memory")
    for path in filesystem.ls("/", detail=False):
        filesystem.rm(path, recursive=True)
    return filesystem


@pytest.fixture
def prompts(tmp_path) -> Path:
    """Ten prompts as JSON lines."""
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Tale {number}"}) + "\n" for number in range(10)))
    return path
