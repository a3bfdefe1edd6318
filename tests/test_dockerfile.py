"""The image's steps, as far as they can be checked without Docker: its files are there, its server becomes healthy."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import needs

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
LAST = TEXT[TEXT.rindex("\nFROM ") :]


def instruction(name: str) -> str:
    (found,) = re.findall(rf"^{name} (.+)$", LAST, re.M)
    return found


def test_the_image_runs_as_a_user_without_rights():
    assert instruction("USER") in re.findall(r"useradd .* (\w+)$", LAST, re.M)
    assert LAST.index("\nUSER ") < LAST.index("\nENTRYPOINT ")


def test_everything_that_is_written_lies_in_the_volume():
    folder = instruction("VOLUME")
    settings = dict(pair.split("=", 1) for pair in shlex.split(instruction("ENV")))
    assert instruction("WORKDIR") == folder
    assert f"--home-dir {folder} " in LAST
    assert all(settings[name].startswith(f"{folder}/") for name in ("GPT2LAB_CACHE", "HF_HOME"))


def test_what_the_build_needs_is_not_ignored():
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert all((ROOT / name).exists() for name in kept)
    build = (ROOT / "pyproject.toml").read_text(encoding="utf-8") + (ROOT / "CMakeLists.txt").read_text(
        encoding="utf-8"
    )
    assert {"src", "native", "pyproject.toml", "CMakeLists.txt", "constraints.txt"} <= kept
    assert {name for name in ("README.md", "LICENSE", "NOTICE") if f'"{name}"' in build} <= kept
    assert not any(fnmatch.fnmatch("src/gpt2lab/__init__.py", line) for line in lines if line != "*" and line[0] != "!")


@needs.mark("uvicorn")
def test_its_server_becomes_healthy_and_writes_nowhere_else(tmp_path):
    """With a free port in place of the published one, and a folder in place of the volume."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    arguments = [port if each == instruction("EXPOSE") else each for each in json.loads(instruction("CMD"))]
    volume, home = tmp_path / "models", tmp_path / "home"
    for folder in (volume, home):
        folder.mkdir()
    inside = instruction("ENV").replace("/models/", f"{volume}/")
    settings = dict(pair.split("=", 1) for pair in shlex.split(inside) if not pair.startswith("PATH="))
    environment = {**os.environ, **settings, "HOME": str(home), "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    check = json.loads(instruction("HEALTHCHECK").partition(" CMD ")[2])[2].replace(instruction("EXPOSE"), port)
    server = subprocess.Popen([sys.executable, "-m", "gpt2lab", *arguments], cwd=volume, env=environment)
    try:
        deadline = time.monotonic() + 120
        while subprocess.run([sys.executable, "-c", check], capture_output=True).returncode:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
    finally:
        server.terminate()
    assert server.wait(60) == 0
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("name", re.findall(r"COPY --from=(\w+)", TEXT))
def test_a_stage_that_is_copied_from_exists(name):
    assert f" AS {name}\n" in TEXT
