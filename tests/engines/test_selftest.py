"""The core's own checks, built with sanitizers on this CPU and, where a cross compiler and an emulator are, for Arm."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from formula import KERNELS_OUTPUT
from golden_folder import write_golden

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


@dataclass(frozen=True)
class Programs:
    """The programs that check the core: against plain loops and itself, and against the original's numbers."""

    selftest: Path
    golden: Path


def build(folder: Path, compiler: list[str], kernels: Kernels, *libraries: str) -> Programs:
    """Build the programs with ``compiler``, a command with its flags; Windows wants their suffix."""
    flags = {f"kernels_{name}": given for name, given in {"baseline": [], **kernels}.items()}  # the longest first
    made = Programs(folder / "selftest.exe", folder / "golden.exe")

    def compiled(name: str) -> Path:
        made = folder / f"{name}.o"
        subprocess.run([*compiler, *flags.get(name, []), "-c", NATIVE / f"{name}.cpp", "-o", made], check=True)
        return made

    def linked(program: Path) -> None:
        source = NATIVE / "tests" / f"{program.stem}.cpp"
        subprocess.run([*compiler, source, *objects, *libraries, "-o", program], check=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, [*flags, *SOURCES]))
        list(pool.map(linked, (made.selftest, made.golden)))
    return made


def gcc(name: str, *flags: str) -> list[str]:
    """Return the command of a compiler with the flags of GCC."""
    return [name, "-std=c++20", "-O1", "-g1", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", *flags]


def check(programs: Programs, folder: Path, *emulator: str) -> set[str]:
    """Run both programs; compare what each set of kernels computed from the formula model with every processor's.

    Returns the names ``SET.PRECISION`` of what was computed.
    """
    (folder / "formula").mkdir()
    write_golden(folder / "golden")
    for program, argument in ((programs.selftest, "formula"), (programs.golden, "golden")):
        result = subprocess.run([*emulator, program, folder / argument], capture_output=True, text=True)
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
    kernels, definitions = (X86_KERNELS, X86_DEFINITIONS) if x86 else (ARM_KERNELS, ARM_DEFINITIONS)
    compiler = gcc("c++", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", *definitions)
    programs = build(tmp_path, compiler, kernels, "-pthread")
    # with random addresses, older sanitizers find no room for their memory
    fixed_addresses = ["setarch", "-R"] if shutil.which("setarch") else []
    check(programs, tmp_path, *fixed_addresses)


@needs.mark("a C++ compiler", "a CPU with AVX-512 for bfloat16")
@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_matrix_unit_in_software(tmp_path):
    tiles = ["-DGPT2LAB_EMULATED_TILES", "-include", str(NATIVE / "emulated_tiles.h")]
    kernels = {name: [*flags, *tiles] if flags is AMX else flags for name, flags in X86_KERNELS.items()}
    programs = build(tmp_path, gcc("c++", tiles[0], *X86_DEFINITIONS), kernels, "-pthread")
    assert {f"amx.{precision}" for precision in KERNELS_OUTPUT} <= check(programs, tmp_path)


@needs.mark("a cross compiler and an emulator for Arm")
@pytest.mark.nightly
def test_arm_under_an_emulator(tmp_path):
    programs = build(tmp_path, gcc("aarch64-linux-gnu-g++", "-static", *ARM_DEFINITIONS), ARM_KERNELS, "-pthread")
    check(programs, tmp_path, "qemu-aarch64")
