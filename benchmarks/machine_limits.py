"""Measure this machine's limits: GB/s read from memory, and arithmetic in float32, 8 bits and tiles.

    python benchmarks/machine_limits.py [--threads N]

Prints one JSON object. Other benchmarks import :func:`measure` to put every speed beside its limit.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
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


@cache
def _compiled() -> str:
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        sys.exit("machine_limits: a C++ compiler is needed (c++, g++ or clang++)")
    folder = tempfile.mkdtemp(prefix="gpt2lab-limits-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = str(Path(folder) / "limits")
    flags = ["-O3", "-march=native", "-ffp-contract=fast", "-std=c++20", "-pthread"]
    subprocess.run([compiler, *flags, str(SOURCE), "-o", program], check=True)
    return program


def measure(threads: int, megabytes: Sequence[int] = (480,), repeats: int = 5) -> dict[str, list[float]]:
    """Return the figures of every repeat.

    ``read_gb_s_480`` and the like, one for each buffer size (huge pages; the smaller the buffer, the more of it stays
    in the last cache); ``float32_gflop_s``; and where the CPU has them ``int8_gop_s`` (VNNI), ``int8_tiles_gop_s`` and
    ``bfloat16_tiles_gflop_s`` (AMX).
    """
    command = [_compiled(), str(threads), str(repeats), *map(str, megabytes)]
    figures = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    bandwidths = {f"read_gb_s_{size}": values for size, values in figures.pop("read_gb_s").items()}
    return {**bandwidths, **figures}


def summary(values: list[float]) -> dict[str, float]:
    """Return the median, the smallest and the largest value."""
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=logical_cores())
    arguments = parser.parse_args()
    figures = measure(arguments.threads, megabytes=(80, 140, 250, 500, 2000))
    print(json.dumps({"threads": arguments.threads, **{name: summary(v) for name, v in figures.items()}}))


if __name__ == "__main__":
    main()
