"""Measure this machine's limits: GB/s read from memory, and arithmetic in float32, 8 bits and tiles.

    python benchmarks/machine_limits.py [--threads N] [--isa avx2]

Prints one JSON object. Other benchmarks import :func:`measure` to put every speed beside its limit.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from gpt2lab.system.cores import logical_cores

SOURCE = Path(__file__).with_name("limits.cpp")
TARGETS = {
    "": ["-march=native"],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512vnni": ["-march=x86-64-v4", "-mavx512vnni"],
}
"""Instruction set → the flags that compile the limits for it; "" is everything that the processor has."""


@cache
def _compiled(isa: str) -> str:
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        sys.exit("machine_limits: a C++ compiler is needed (c++, g++ or clang++)")
    folder = tempfile.mkdtemp(prefix="gpt2lab-limits-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = str(Path(folder) / "limits")
    flags = ["-O3", *TARGETS[isa], "-ffp-contract=fast", "-std=c++20", "-pthread"]
    subprocess.run([compiler, *flags, str(SOURCE), "-o", program], check=True)
    return program


def measure(threads: int, megabytes: Sequence[int] = (480,), repeats: int = 5, isa: str = "") -> dict[str, list[float]]:
    """Return the figures of every repeat, with the instruction set ``isa`` alone unless it is "".

    ``read_gb_s_480`` and the like, one for each buffer size (huge pages; the smaller the buffer, the more of it stays
    in the last cache); ``float32_gflop_s``; and where the CPU has them ``int8_gop_s`` (8-bit dot products, by VNNI or
    three instructions of AVX2), ``int8_tiles_gop_s`` and ``bfloat16_tiles_gflop_s`` (AMX).
    """
    command = [_compiled(isa), str(threads), str(repeats), *map(str, megabytes)]
    figures = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    bandwidths = {f"read_gb_s_{size}": values for size, values in figures.pop("read_gb_s").items()}
    return {**bandwidths, **figures}


def cpu_name() -> str:
    """Return the processor's name as the system reports it, with the number of logical cores that it may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model", "Hardware"))]
    name = named[0] if named else platform.processor() or platform.machine()
    return f"{name}{_family(lines)}, {logical_cores()} logical cores"


def _family(lines: list[str]) -> str:
    """Return family, model and stepping, because virtual machines shorten names to such as ``Intel Xeon Processor``."""
    fields = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines}
    known = [f"{name} {fields[key]}" for name, key in _NUMBERS.items() if key in fields]
    return f" ({', '.join(known)})" if known else ""


_NUMBERS = {"family": "cpu family", "model": "model", "stepping": "stepping"}


def summary(values: list[float]) -> dict[str, float]:
    """Return the median, the smallest and the largest value."""
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=logical_cores())
    parser.add_argument("--isa", choices=[isa for isa in TARGETS if isa], default="", help="this instruction set alone")
    arguments = parser.parse_args()
    figures = measure(arguments.threads, megabytes=(80, 140, 250, 500, 2000), isa=arguments.isa)
    print(
        json.dumps(
            {
                "cpu": cpu_name(),
                "isa": arguments.isa,
                "threads": arguments.threads,
                **{name: summary(v) for name, v in figures.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
