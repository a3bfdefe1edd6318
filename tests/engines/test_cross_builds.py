"""clang builds the core for every system that gpt2lab is to run on, and for browsers the kernels and the sampler.

Where an emulator is installed, the core's own checks run too, and what each set of kernels computes from the formula
model must be what every other processor computes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from test_selftest import NATIVE, X86_KERNELS, Programs, build, check

import needs

needs.package("ziglang")

X86 = {name: flags for name, flags in X86_KERNELS.items() if name not in ("amx", "tiles")}  # for Linux alone
ARM = {"dotprod": ["-mcpu=generic+dotprod"]}  # zig's own spelling
X86_DEFINITIONS = ["-DGPT2LAB_X86_KERNELS", "-DGPT2LAB_AVXVNNI_KERNELS"]
CPUS = {"x86_64": (X86, X86_DEFINITIONS), "aarch64": (ARM, ["-DGPT2LAB_DOTPROD_KERNELS"])}
STATIC_ARM = "aarch64-linux-musl"  # clang's counterpart of gcc's static program, which an emulator runs by itself
TARGETS = ["x86_64-linux-gnu", "aarch64-linux-gnu", "x86_64-windows-gnu", "x86_64-macos", "aarch64-macos"]

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1200)]


def compiler(target: str, *flags: str) -> list[str]:
    clang = [sys.executable, "-m", "ziglang", "c++", "-target", target]
    return [*clang, "-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", *flags]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Programs]:
    """Return a function that builds the core's checks for a target, once."""
    built: dict[str, Programs] = {}

    def programs_for(target: str) -> Programs:
        if target not in built:
            kernels, definitions = CPUS[target.split("-", maxsplit=1)[0]]
            built[target] = build(tmp_path_factory.mktemp(target), compiler(target, *definitions), kernels)
        return built[target]

    return programs_for


@pytest.mark.parametrize("target", TARGETS)
def test_the_core_is_built(programs, target):
    assert programs(target).selftest.stat().st_size > 100_000


@needs.mark("Wine")
def test_windows_under_wine(programs, tmp_path, monkeypatch):
    monkeypatch.setenv("WINEPREFIX", str(tmp_path / "wine"))
    monkeypatch.setenv("WINEDEBUG", "-all")
    check(programs("x86_64-windows-gnu"), tmp_path, "wine")


@needs.mark("an emulator for Arm")
def test_arm_under_an_emulator(programs, tmp_path):
    check(programs(STATIC_ARM), tmp_path, "qemu-aarch64")


@pytest.mark.parametrize("name", ["kernels_baseline", "precision", "sampler"])
def test_kernels_and_sampler_are_built_for_browsers(tmp_path, name):
    out = tmp_path / f"{name}.o"
    subprocess.run([*compiler("wasm32-wasi", "-msimd128"), "-c", NATIVE / f"{name}.cpp", "-o", out], check=True)
    assert out.read_bytes()[:4] == b"\0asm"
