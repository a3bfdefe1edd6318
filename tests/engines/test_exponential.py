"""The exponential of the sampling rules against the native core's, and against Python's."""

from __future__ import annotations

import hashlib
import math
import platform
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_selftest import NATIVE, SOURCES, X86_DEFINITIONS, X86_KERNELS

import needs
from gpt2lab import _native
from gpt2lab.sampling.exponential import exp

PROGRAM = """
#include <cstdio>
#include <vector>
#include "instruction_set.h"
int main(int, char** names) {
  std::vector<double> x(1 << 20), out(x.size());
  x.resize(std::fread(x.data(), sizeof(double), x.size(), stdin));
  gpt2lab::choose_kernels(names[1]).exp(x.data(), int(x.size()), out.data());
  std::fwrite(out.data(), sizeof(double), x.size(), stdout);
}
"""


def numbers() -> np.ndarray:
    """Return numbers of every size, made from integers and divisions: the same on every machine."""
    whole = (np.arange(200_000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(11)).astype(np.float64)
    part = whole / 2**53
    edges = [0.0, -0.0, -5e-324, -(2.0**-53), -1.0, -707.9999999999999, -708.0, -708.0000000000001, -1e300, -np.inf]
    return np.concatenate([-part * 710, -part, -part * 2.0**-30, np.arange(0, -1100, -1) * (math.log(2) / 2), edges])


@given(st.lists(st.floats(max_value=0, allow_nan=False), min_size=1, max_size=40))
@settings(max_examples=300, deadline=None)
def test_it_is_the_exponential_to_about_a_unit_in_the_last_place(x):
    for found, each in zip(exp(np.array(x)), x, strict=True):
        assert found == pytest.approx(math.exp(each) if each >= -708 else 0, rel=3e-16, abs=0)


@given(st.lists(st.floats(-800, 0), min_size=1, max_size=60), st.integers(0, 59))
def test_a_number_does_not_depend_on_its_neighbours(x, at):
    at %= len(x)
    assert exp(np.array(x))[at] == exp(np.array(x[at : at + 1]))[0]


def test_its_bits_are_the_same_on_every_machine():
    assert hashlib.sha256(exp(numbers()).astype("<f8").tobytes()).hexdigest() == (
        "bca8e77c84aaa275255d950b374e672d54f6c107189cd0aed276145d77aec3d8"
    )


@needs.mark("a C++ compiler")
@pytest.mark.slow
@pytest.mark.timeout(900)  # compiles the kernels
def test_its_bits_are_those_of_the_core_with_every_instruction_set(tmp_path):
    x86 = platform.machine() in ("x86_64", "AMD64")
    compiler = ["c++", "-std=c++20", "-O1", "-ffp-contract=off", f"-I{NATIVE}", *(X86_DEFINITIONS if x86 else [])]
    objects = []
    for name, flags in {"baseline": [], **(X86_KERNELS if x86 else {})}.items():
        objects.append(tmp_path / f"{name}.o")
        subprocess.run([*compiler, *flags, "-c", NATIVE / f"kernels_{name}.cpp", "-o", objects[-1]], check=True)
    source = tmp_path / "program.cpp"
    source.write_text(PROGRAM)
    sources = [source, *(NATIVE / f"{name}.cpp" for name in SOURCES)]
    subprocess.run([*compiler, *sources, *objects, "-pthread", "-o", tmp_path / "program"], check=True)
    x = numbers()
    for name in _native.instruction_sets() if x86 else ["baseline"]:
        run = subprocess.run([tmp_path / "program", name], input=x.tobytes(), capture_output=True, check=True)
        np.testing.assert_array_equal(np.frombuffer(run.stdout).view(np.int64), exp(x).view(np.int64), name)
