"""The installed files, metadata and imports; and a check that tests cannot reach the network."""

from __future__ import annotations

import http.server
import re
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zlib
from importlib.metadata import entry_points, metadata
from importlib.resources import files
from pathlib import Path

import pytest

import gpt2lab
import needs

HEAVY = ("torch", "transformers", "tensorboard", "matplotlib", "huggingface_hub", "safetensors", "pandas", "uvicorn")


def python(code: str, cwd: Path) -> str:
    """Return what a separate Python prints."""
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True).stdout


def test_version_is_the_metadata_s():
    assert gpt2lab.__version__ == metadata("gpt2lab")["Version"]


def test_every_public_name_can_be_had():
    assert all(getattr(gpt2lab, name) is not None for name in gpt2lab.__all__)


def test_assets_and_type_marker_are_installed():
    package = files("gpt2lab")
    assert (package / "assets" / "vocab.bpe").read_bytes().startswith(b"#version: 0.2\n")
    assert (package / "assets" / "tales.gguf").read_bytes()[:4] == b"GGUF"
    assert (package / "py.typed").is_file()


def test_embedded_model_is_small():
    assert len(zlib.compress((files("gpt2lab") / "assets" / "tales.gguf").read_bytes())) <= 30e6  # as a wheel has it


def test_command_is_installed():
    (command,) = (point for point in entry_points(group="console_scripts") if point.name == "gpt2lab")
    assert command.load() is not None


def test_base_requirements_are_few_and_unpinned():
    base = needs.PROJECT["dependencies"]
    assert {re.split(r"[<>=~! ]", line)[0] for line in base} == {
        "click",
        "filelock",
        "fsspec",
        "huggingface_hub",
        "numpy",
        "regex",
        "rich",
        "safetensors",
        "tiktoken",
    }
    assert not any("==" in line for line in base)


def test_importing_the_package_imports_nothing_else(tmp_path):
    code = "import sys; import gpt2lab; print([m for m in ('numpy', 'tiktoken', 'click') if m in sys.modules])"
    assert python(code, tmp_path) == "[]\n"


def test_generate_imports_nothing_heavy(tmp_path):
    code = f"""
import contextlib, io, sys
from gpt2lab.cli.main import main
with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
    main(["generate", "Once upon a time", "--length", "2", "--seed", "1"])
print("loaded:", [name for name in {HEAVY!r} if name in sys.modules])
"""
    output = python(code, tmp_path)
    assert "Once upon a time" in output
    assert output.endswith("loaded: []\n")


def test_network_is_refused():
    with pytest.raises(pytest.fail.Exception, match="tried to reach"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(pytest.fail.Exception, match="tried to reach"):
        socket.getaddrinfo("example.com", 80)


def test_loopback_is_not_refused():
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.handle_request, daemon=True).start()
    with pytest.raises(urllib.error.HTTPError, match="501"):  # an answer, although an error
        urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/", timeout=10)
    server.server_close()
