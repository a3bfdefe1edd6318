"""The needs of tests that not every machine meets: packages of extras, programs, properties of the system.

Everything is declared here once. A test names what it needs, and is skipped where that is missing:
``@needs.mark("Linux")`` on a test or as a module's ``pytestmark``, ``torch = needs.package("torch")`` in place of an
import, ``needs.check("a CPU with AMX")`` in a test's body. :mod:`skips` finds out from the same declarations which
skips an installation would have prevented.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
PROJECT: dict[str, Any] = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]

# Modules that tests import if they can, and the requirement in pyproject.toml that brings each.
PACKAGES = {
    "aiohttp": "ray[serve]",
    "axe_playwright_python": "axe-playwright-python",
    "fastapi": "fastapi",
    "gguf": "gguf",
    "httpx": "httpx",
    "ipykernel": "ipykernel",
    "llama_cpp": "llama-cpp-python",
    "lm_eval": "lm-eval",
    "matplotlib": "matplotlib",
    "nbclient": "nbclient",
    "nbformat": "nbformat",
    "openai": "openai",
    "peft": "peft",
    "playwright": "playwright",
    "pyarrow": "pyarrow",
    "ray": "ray",
    "schemathesis": "schemathesis",
    "tensorboard": "tensorboard",
    "tokenizers": "tokenizers",
    "torch": "torch",
    "transformers": "transformers",
    "uvicorn": "uvicorn",
    "ziglang": "ziglang",
    "zstandard": "zstandard",
}


def extras_with(requirement: str, *, everywhere: bool = False) -> frozenset[str]:
    """Return the extras that install ``requirement``, a name with or without its own extras, here or on any Python."""
    wanted = Requirement(requirement)
    return frozenset(
        extra
        for extra, listed in EXTRAS.items()
        for each in map(Requirement, listed)
        if canonicalize_name(each.name) == canonicalize_name(wanted.name)
        and wanted.extras <= each.extras
        and (everywhere or each.marker is None or each.marker.evaluate())
    )


def chromium() -> str | None:
    """Return the path of this machine's Chromium."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for path in map(shutil.which, names) if path), None)


def _kernels_for_amx() -> bool:
    from gpt2lab import _native

    return "amx" in _native.instruction_sets()


def _cpu_has(*features: str) -> Callable[[], bool]:
    """Return whether Linux lists ``features`` of the CPU, whether or not our core uses them; False elsewhere."""

    def listed() -> bool:
        try:
            return set(features) <= set(Path("/proc/cpuinfo").read_text().split())
        except OSError:
            return False

    return listed


AVX512_BFLOAT16 = "avx512_bf16", "avx512_vnni"
_cpu_has_amx = _cpu_has("amx_tile", "amx_int8", "amx_bf16", *AVX512_BFLOAT16)


def _has_module(name: str) -> Callable[[], bool]:
    return lambda: importlib.util.find_spec(name) is not None


def _has_program(name: str) -> Callable[[], bool]:
    return lambda: shutil.which(name) is not None


def _never(extras: frozenset[str]) -> bool:
    return False


@dataclass(frozen=True)
class Need:
    """A need of tests: whether it is met, and whether it must be met once ``extras`` are installed."""

    is_met: Callable[[], bool]
    is_due: Callable[[frozenset[str]], bool] = _never  # no installation brings it
    at_most: int | None = None
    """The number of tests of a run that may be skipped for lack of it; None: any."""


def _from_extras(is_met: Callable[[], bool], *extras: str) -> Need:
    return Need(is_met, lambda installed: bool(installed & frozenset(extras)))


NEEDS: dict[str, Need] = {
    **{module: _from_extras(_has_module(module), *extras_with(listed)) for module, listed in PACKAGES.items()},
    "Chromium": _from_extras(lambda: chromium() is not None, "browser"),
    "torch.distributed": _from_extras(lambda: importlib.import_module("torch").distributed.is_available(), "train"),
    "npm": Need(lambda: shutil.which("npm") is not None),
    **{name: Need(_has_program(name)) for name in ("bash", "zsh", "fish")},
    "a C++ compiler": Need(lambda: shutil.which("c++") is not None, lambda extras: True),  # as gpt2lab itself does
    "a cross compiler and an emulator for Arm": _from_extras(
        lambda: all(map(shutil.which, ("aarch64-linux-gnu-g++", "qemu-aarch64"))), "arm"
    ),
    "an emulator for Arm": _from_extras(_has_program("qemu-aarch64"), "arm"),
    "Wine": _from_extras(lambda: shutil.which("wine") is not None, "wine"),
    "a CPU with AMX": Need(_kernels_for_amx, lambda extras: _cpu_has_amx()),
    "a CPU with AVX-512 for bfloat16": Need(_cpu_has(*AVX512_BFLOAT16)),
    "Linux": Need(lambda: sys.platform == "linux"),
    "POSIX": Need(lambda: os.name == "posix"),
    "/dev/full": Need(lambda: Path("/dev/full").is_char_device()),
    "a user whom permissions bind": Need(  # root is bound by the helper permissions.py, on Linux
        lambda: hasattr(os, "geteuid") and (os.geteuid() != 0 or sys.platform == "linux")
    ),
    "the main thread": Need(lambda: threading.current_thread() is threading.main_thread()),
    "a machine without CUDA": Need(lambda: not importlib.import_module("torch").cuda.is_available()),
    "a machine that starts Ray within its 30 seconds": Need(lambda: False, at_most=2),  # checked where it did not
}


def reason_of(name: str) -> str:
    """Return the reason that a skipped test gives."""
    extras = sorted(extras_with(PACKAGES[name])) if name in PACKAGES else []
    return f"needs {name}" + (f": pip install 'gpt2lab[{extras[0]}]'" if extras else "")


NAME_OF = {reason_of(name): name for name in NEEDS}


def missing(*names: str) -> str | None:
    """Return the reason to skip a test that needs all of ``names``; None if everything is here."""
    return next((reason_of(name) for name in names if not NEEDS[name].is_met()), None)


def mark(*names: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test, or with ``pytestmark`` a module's tests, unless all of ``names`` are here."""
    reason = missing(*names)
    return pytest.mark.skipif(reason is not None, reason=reason or "")


def check(*names: str) -> None:
    """Skip the test, module or folder that calls this unless all of ``names`` are here."""
    __tracebackhide__ = True  # the caller's line is reported
    if reason := missing(*names):
        pytest.skip(reason, allow_module_level=True)


def package(module: str) -> Any:
    """Return the module, of a package in :data:`PACKAGES`; if that is missing, skip the caller."""
    __tracebackhide__ = True
    check(module.partition(".")[0])
    return importlib.import_module(module)
