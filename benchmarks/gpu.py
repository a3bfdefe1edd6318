"""Check and measure a GPU in one go: promises, decoding, training; ends in less than ten minutes with one JSON file.

    python benchmarks/gpu.py [--device auto] [--out gpu.json] [--minutes 9] [--nanogpt FOLDER]

Without a GPU, ``auto`` is ``torch-cpu``: everything then runs on tiny shapes, and the speeds say nothing. ``FOLDER`` is
a checkout of karpathy/nanoGPT. A peer that is not installed is named and skipped, and so is every part for which no
time is left. Each part runs in a separate process, so a part that fails does not stop the others. The exit status is 1
if a check fails.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gpt2lab.engines.precision import checked_device

PARTS = Path(__file__).parent / "drivers" / "gpu_driver.py"
CHECKS = ("golden", "promise", "cpu_and_gpu", "resume")
SIZES, BATCHES = ("124M", "1558M"), (1, 8, 64)
PROGRAMS = ("gpt2lab", "gpt2lab unpadded", "transformers", "vllm")


def main() -> None:
    """Run every part, in the order of their importance."""
    arguments = parse()
    began, results = time.monotonic(), {}
    for part in parts_of(arguments.device):
        left = 60 * arguments.minutes - (time.monotonic() - began)
        results[part] = run(part, arguments, left) if left > 0 else {"skipped": "no time was left"}
        print(f"{part:32} {json.dumps(results[part])}", flush=True)
        arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    sys.exit(any("failed" in result or result.get("passed") is False for result in results.values()))


def parts_of(device: str) -> list[str]:
    """Return the names of the parts: the program, and what it computes."""
    sizes, batches = (("tiny",), (8,)) if device == "torch-cpu" else (SIZES, BATCHES)
    decode = [f"decode {program} {size} {batch}" for size in sizes for batch in batches for program in PROGRAMS]
    return [*CHECKS, "train gpt2lab", "train nanogpt", *decode]


def run(part: str, arguments: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Run a part in a process of its own and return its last line, which is JSON."""
    command = [sys.executable, str(PARTS), part, "--device", arguments.device]
    command += ["--nanogpt", str(arguments.nanogpt)] if arguments.nanogpt else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"skipped": f"it took longer than the {seconds:.0f} s that were left"}
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    last = lines[-1] if lines else f"exit status {done.returncode}"
    if done.returncode:
        return {"failed": last}
    found: dict[str, Any] = json.loads(last)
    return found


def parse() -> argparse.Namespace:
    """Return the arguments, with the device that ``auto`` is here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=("auto", "cuda", "mps", "torch-cpu"))
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--nanogpt", type=Path)
    arguments = parser.parse_args()
    device = checked_device(arguments.device)
    arguments.device = "torch-cpu" if device == "cpu" else device
    return arguments


if __name__ == "__main__":
    main()
