"""Keeps every test on this machine and out of its user's files.

No test reaches beyond the loopback interface, nor reads or fills a cache, ours or Hugging Face's. Subprocesses inherit
the part of this that environment variables control.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from skips import Skips

# Set before any test module imports huggingface_hub or transformers, which read them once.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "NO_PROXY": "*",
    "no_proxy": "*",
}

# Torch's threads wait for each other by spinning, and take the processor from those they wait for: on two busy cores
# the tests of training then took four times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Where pytest-xdist's workers keep the processors busy already, one thread each is quickest, for the same reason.
IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if IS_WORKER:
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

# A script's background job ignores Ctrl-C, and every process that a test starts and interrupts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure: property tests have no time limit for each example.
settings.register_profile("gpt2lab", deadline=None)
settings.load_profile("gpt2lab")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["HF_HOME"] = str(tmp_path_factory.mktemp("huggingface"))
    os.environ["GPT2LAB_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread_each() -> Iterator[None]:
    """Let engines in a worker compute with one thread unless a test asks for more."""
    with pytest.MonkeyPatch.context() as patch:
        if IS_WORKER and importlib.util.find_spec("gpt2lab._native"):
            patch.setattr("gpt2lab.engines.native.physical_cores", lambda: 1)
        yield


@pytest.fixture
def no_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep training from drawing pictures of its losses, which would take longer than training a tiny model."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "gpt2lab.training.metrics.find_spec", lambda name: None if name == "matplotlib" else found(name)
    )


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def checked_connect(self: socket.socket, address: Any) -> None:
        _refuse_foreign(self.family, address)
        connect(self, address)

    def checked_connect_ex(self: socket.socket, address: Any) -> int:
        _refuse_foreign(self.family, address)
        return connect_ex(self, address)

    def checked_getaddrinfo(host: Any, *arguments: Any, **more: Any) -> Any:
        _refuse_foreign(socket.AF_INET, (host,))
        return getaddrinfo(host, *arguments, **more)

    monkeypatch.setattr(socket.socket, "connect", checked_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", checked_connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", checked_getaddrinfo)


def _refuse_foreign(family: int, address: Any) -> None:
    """Fail the test if ``address`` is on another machine. Every name but ``localhost`` counts as another machine."""
    if family not in (socket.AF_INET, socket.AF_INET6) or address[0] in (None, "", "localhost", b"localhost"):
        return
    host = address[0].decode() if isinstance(address[0], bytes) else str(address[0])
    try:
        if ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass
    pytest.fail(f"a test tried to reach {host}: tests stay on this machine")


class RunFolder:
    """A training run's files, written by hand: the run ``name`` in ``base``, at ``path``; none exist at first."""

    def __init__(self, base: Path, name: str = "run1") -> None:
        self.path = base / "checkpoint" / name
        self.samples = base / "samples" / name
        self.metrics = self.path / "metrics.jsonl"

    def settings(self, **values: Any) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        values = {"checkpoint_dir": "checkpoint", "sample_dir": "samples", "run_name": self.path.name, **values}
        (self.path / "settings.json").write_text(json.dumps(values))

    def update(self, step: int, loss: float = 2.0, *, mode: str = "a", **more: Any) -> None:
        """Write the record of an update; each takes half a second."""
        record = {"step": step, "seconds": step / 2, "loss": loss, "average": loss, "learning_rate": 1e-3}
        self.record(**{**record, "tokens_per_second": 100.0, "memory": 1 << 30, **more}, mode=mode)

    def validation(self, step: int, loss: float) -> None:
        self.record(step=step, seconds=step / 2, val_loss=loss)

    def record(self, *, mode: str = "a", **record: Any) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        with self.metrics.open(mode) as file:
            file.write(json.dumps(record) + "\n")

    def ended(self, outcome: str, step: int, reason: str) -> None:
        (self.path / "ended.json").write_text(json.dumps({"outcome": outcome, "step": step, "reason": reason}))

    def sample(self, step: int, *texts: str) -> None:
        self.samples.mkdir(parents=True, exist_ok=True)
        blocks = (f"======== SAMPLE {number} ========\n{text}\n" for number, text in enumerate(texts, start=1))
        (self.samples / f"samples-{step}").write_text("\n".join(blocks), encoding="utf-8", newline="\n")


@pytest.fixture(scope="session")
def run_folders() -> type[RunFolder]:
    """Write the records of several updates."""
    return RunFolder


@pytest.fixture
def run_folder(tmp_path: Path) -> RunFolder:
    """Provide the folder of a run that has not begun."""
    return RunFolder(tmp_path)


def pytest_addoption(parser: pytest.Parser) -> None:
    about = "extras that are installed: fail if a test is skipped that could run with these on this machine"
    parser.addoption("--installed", metavar="EXTRAS", help=about)


def pytest_configure(config: pytest.Config) -> None:
    extras = config.getoption("--installed")
    config.pluginmanager.register(Skips(None if extras is None else frozenset(extras.split(","))))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first, so that no process ends up alone with one of them."""
    longest = ("test_docs.py", "test_train.py", "test_start.py", "test_distributed.py")
    items.sort(key=lambda item: item.path.name not in longest)
