"""What this machine can do at most, measured: GB/s read from memory and float32 GFLOP/s.

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
from functools import cache
from pathlib import Path

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


def measure(threads: int, megabytes: int = 480, repeats: int = 5) -> dict[str, list[float]]:
    """Figures of every repeat: ``read_gb_s`` (a buffer of ``megabytes`` in huge pages) and ``float32_gflop_s``."""
    command = [_compiled(), str(threads), str(megabytes), str(repeats)]
    result: dict[str, list[float]] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return result


def summary(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    figures = measure(arguments.threads)
    print(json.dumps({"threads": arguments.threads, **{name: summary(v) for name, v in figures.items()}}))


if __name__ == "__main__":
    main()
