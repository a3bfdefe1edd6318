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
ARM_DEFINITIONS = ["-DGPT2LAB_DOTPROD_KERNELS"]
X86_DEFINITIONS = [f"-DGPT2LAB_{name}_KERNELS" for name in ("X86", "AVXVNNI", "AMX")]
Kernels = dict[str, list[str]]
"""Names of sets of kernels and the flags to compile them with."""

pytestmark = pytest.mark.slow


def build(folder: Path, compiler: str, flags: list[str], kernels: Kernels, definitions: list[str]) -> Path:
    common = [compiler, "-std=c++20", "-O1", "-g1", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", *flags]
    common += definitions
    objects = []
    sources = [(source, []) for source in SOURCES] + [("kernels_baseline", [])]
    for name, extra in sources + [(f"kernels_{name}", flags) for name, flags in kernels.items()]:
        objects.append(folder / f"{name}.o")
        subprocess.run([*common, *extra, "-c", NATIVE / f"{name}.cpp", "-o", objects[-1]], check=True)
    program = folder / "selftest"
    subprocess.run([*common, NATIVE / "tests" / "selftest.cpp", *objects, "-pthread", "-o", program], check=True)
    return program


def check(command: list[str | Path], folder: Path) -> set[str]:
    """Run the program; compare what each set of kernels computed from the formula model with every processor's.

    Returns the names ``SET.PRECISION`` of what was computed.
    """
    (folder / "formula").mkdir()
    result = subprocess.run([*command, folder / "formula"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "formula").iterdir()}
    assert {f"baseline.{precision}" for precision in KERNELS_OUTPUT} <= found.keys()
    assert found == {name: KERNELS_OUTPUT[name.split(".")[1]] for name in found}
    return set(found)


@needs.mark("a C++ compiler")
@pytest.mark.parametrize(
    "sanitizers",
    ["address,undefined", pytest.param("thread", marks=pytest.mark.nightly)],  # minutes each
)
@pytest.mark.timeout(1800)  # compiles everything, perhaps while other tests run
def test_this_cpu_with_sanitizers(tmp_path, sanitizers):
    x86 = platform.machine() in ("x86_64", "AMD64")
    kernels = (X86_KERNELS, X86_DEFINITIONS) if x86 else (ARM_KERNELS, ARM_DEFINITIONS)
    program = build(tmp_path, "c++", [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"], *kernels)
    # with random addresses, older sanitizers find no room for their memory
    fixed_addresses = ["setarch", "-R"] if shutil.which("setarch") else []
    check([*fixed_addresses, program], tmp_path)


@needs.mark("a C++ compiler", "a CPU with AVX-512 for bfloat16")
@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_matrix_unit_in_software(tmp_path):
    tiles = ["-DGPT2LAB_EMULATED_TILES", "-include", str(NATIVE / "emulated_tiles.h")]
    kernels = {name: [*flags, *tiles] if flags is AMX else flags for name, flags in X86_KERNELS.items()}
    program = build(tmp_path, "c++", tiles[:1], kernels, X86_DEFINITIONS)
    assert {f"amx.{precision}" for precision in KERNELS_OUTPUT} <= check([program], tmp_path)


@needs.mark("a cross compiler and an emulator for Arm")
@pytest.mark.nightly
def test_arm_under_an_emulator(tmp_path):
    program = build(tmp_path, "aarch64-linux-gnu-g++", ["-static"], ARM_KERNELS, ARM_DEFINITIONS)
    check(["qemu-aarch64", program], tmp_path)
