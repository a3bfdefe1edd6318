"""clang builds the core for every system that gpt2lab is to run on, and for browsers the kernels and the sampler."""

from __future__ import annotations

import subprocess
import sys

import pytest
from test_selftest import NATIVE, SOURCES, X86_KERNELS

import needs

needs.package("ziglang")

X86 = {name: flags for name, flags in X86_KERNELS.items() if name not in ("amx", "tiles")}  # for Linux alone
ARM = {"dotprod": ["-mcpu=generic+dotprod"]}  # zig's own spelling
X86_DEFINITIONS = ["-DGPT2LAB_X86_KERNELS", "-DGPT2LAB_AVXVNNI_KERNELS"]
CPUS = {"x86_64": (X86, X86_DEFINITIONS), "aarch64": (ARM, ["-DGPT2LAB_DOTPROD_KERNELS"])}
TARGETS = ["x86_64-linux-gnu", "aarch64-linux-gnu", "x86_64-windows-gnu", "x86_64-macos", "aarch64-macos"]

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1200)]


def compiler(target: str, *flags: str) -> list[str]:
    clang = [sys.executable, "-m", "ziglang", "c++", "-target", target]
    return [*clang, "-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", *flags]


@pytest.mark.parametrize("target", TARGETS)
def test_the_core_is_built(tmp_path, target):
    kernels, definitions = CPUS[target.split("-", maxsplit=1)[0]]
    objects = []
    sources = [(name, []) for name in SOURCES] + [("kernels_baseline", [])]
    for name, flags in sources + [(f"kernels_{name}", flags) for name, flags in kernels.items()]:
        objects.append(tmp_path / f"{name}.o")
        command = [*compiler(target, *definitions, *flags), "-c", str(NATIVE / f"{name}.cpp"), "-o", str(objects[-1])]
        subprocess.run(command, check=True)
    program = tmp_path / "selftest"
    selftest = NATIVE / "tests" / "selftest.cpp"
    subprocess.run([*compiler(target, *definitions), selftest, *objects, "-o", program], check=True)
    assert program.stat().st_size > 100_000


@pytest.mark.parametrize("name", ["kernels_baseline", "precision", "sampler"])
def test_kernels_and_sampler_are_built_for_browsers(tmp_path, name):
    out = tmp_path / f"{name}.o"
    subprocess.run([*compiler("wasm32-wasi", "-msimd128"), "-c", NATIVE / f"{name}.cpp", "-o", out], check=True)
    assert out.read_bytes()[:4] == b"\0asm"
