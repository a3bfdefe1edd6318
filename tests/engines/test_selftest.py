"""The core's own checks, built with sanitizers on this CPU and, where a cross compiler and an emulator are, for Arm."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from formula import KERNELS_OUTPUT

import needs

NATIVE = Path(__file__).parents[2] / "native"
SOURCES = sorted(path.stem for path in NATIVE.glob("*.cpp") if "kernels_" not in path.stem)
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
QUIET = ["-Wno-unknown-warning-option", "-Wno-maybe-uninitialized"]  # gcc 12's own headers; clang knows the first
AVX512 = [*AVX2, *(f"-mavx512{x}" for x in ("f", "bw", "dq", "vl")), *QUIET]
AMX = [*AVX512, "-mavx512vnni", "-mavx512bf16", "-mamx-tile", "-mamx-int8", "-mamx-bf16"]
X86_KERNELS = {
    "avx2": AVX2,
    "avxvnni": [*AVX2, "-mavxvnni"],
    "avx512": AVX512,
    "avx512vnni": [*AVX512, "-mavx512vnni"],
    "amx": AMX,
    "tiles": AMX,
}
ARM_KERNELS = {"dotprod": ["-march=armv8.2-a+dotprod"]}
X86_DEFINITIONS = [f"-DGPT2LAB_{name}_KERNELS" for name in ("X86", "AVXVNNI", "AMX")]

pytestmark = pytest.mark.slow


def build(folder: Path, compiler: str, flags: list[str], x86: bool) -> Path:
    common = [compiler, "-std=c++20", "-O1", "-g1", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", *flags]
    kernels = {"baseline": [], **(X86_KERNELS if x86 else ARM_KERNELS)}
    common += X86_DEFINITIONS if x86 else ["-DGPT2LAB_DOTPROD_KERNELS"]
    objects = []
    for name, extra in [(s, []) for s in SOURCES] + [(f"kernels_{k}", f) for k, f in kernels.items()]:
        objects.append(folder / f"{name}.o")
        subprocess.run([*common, *extra, "-c", NATIVE / f"{name}.cpp", "-o", objects[-1]], check=True)
    program = folder / "selftest"
    subprocess.run([*common, NATIVE / "tests" / "selftest.cpp", *objects, "-pthread", "-o", program], check=True)
    return program


def check(command: list[str | Path], folder: Path) -> None:
    """Run the program, and compare what each set of kernels computed from the formula model with every processor's."""
    (folder / "formula").mkdir()
    result = subprocess.run([*command, folder / "formula"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "formula").iterdir()}
    assert {f"baseline.{precision}" for precision in KERNELS_OUTPUT} <= found.keys()
    assert found == {name: KERNELS_OUTPUT[name.split(".")[1]] for name in found}


@needs.mark("a C++ compiler")
@pytest.mark.parametrize(
    "sanitizers",
    ["address,undefined", pytest.param("thread", marks=pytest.mark.nightly)],  # minutes each
)
@pytest.mark.timeout(1800)  # compiles everything, perhaps while other tests run
def test_this_cpu_with_sanitizers(tmp_path, sanitizers):
    x86 = platform.machine() in ("x86_64", "AMD64")
    program = build(tmp_path, "c++", [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"], x86)
    # with random addresses, older sanitizers find no room for their memory
    fixed_addresses = ["setarch", "-R"] if shutil.which("setarch") else []
    check([*fixed_addresses, program], tmp_path)


@needs.mark("a cross compiler and an emulator for Arm")
@pytest.mark.nightly
def test_arm_under_an_emulator(tmp_path):
    program = build(tmp_path, "aarch64-linux-gnu-g++", ["-static"], x86=False)
    check(["qemu-aarch64", program], tmp_path)
