"""The code that the drivers share: workloads, prompts, the clock. One driver process measures one setting of one peer.

A driver hands :func:`drive` a function that loads its model; that returns a function that generates greedily. Every
peer is timed by the same code through its ordinary way of generating, so sampling and detours through Python count.
Each result is one line of JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

Generate = Callable[[list[list[int]], int], int]
"""``generate(prompts, new)`` draws ``new`` tokens for each prompt greedily and returns how many it drew in all."""
Load = Callable[[Path, int, dict[str, Any]], Generate]
"""``load(model, threads, options)``."""

N_VOCAB = 50256
"""Prompts hold ids below this: no end of text."""


class Workload(NamedTuple):
    batch: int
    prompt: int
    new: int


WORKLOADS = {
    "decode": Workload(1, 16, 256),
    "prefill_512": Workload(1, 512, 1),
    "prefill_1000": Workload(1, 1000, 1),
    "batch_8": Workload(8, 16, 128),
    "batch_32": Workload(32, 16, 128),
}
COLD = Workload(1, 16, 1)
PROMPTS = 7
"""How many prompts a prompt workload times; their median counts."""


def drive(load: Load) -> None:
    """Parse the command line, load, warm up, measure and print; ``load`` must do its own imports.

    The workload ``cold`` measures the start of the process instead: no warm-up, nothing else in the same process.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--workloads", required=True)
    parser.add_argument("--started", type=float, help="time.monotonic() when the process was started")
    arguments = parser.parse_args()
    generate = load(arguments.model, arguments.threads, arguments.options)
    if arguments.workloads == "cold":
        timed(generate, prompts(COLD, 0), 1)
        emit("cold", seconds=time.monotonic() - arguments.started, peak_mb=peak_mb())
        return
    for name in arguments.workloads.split(","):
        workload = WORKLOADS[name]
        timed(generate, prompts(workload, 0), min(workload.new, 16))
        emit(name, tokens_s=tokens_per_second(generate, workload), peak_mb=peak_mb())


def prompts(workload: Workload, seed: int) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(N_VOCAB) for _ in range(workload.prompt)] for _ in range(workload.batch)]


def tokens_per_second(generate: Generate, workload: Workload) -> float:
    """Return tokens per second: of one sequence, prompt or new tokens alone; of a batch, new ones in the whole time.

    A prompt takes a fraction of a second, so its time is the median of :data:`PROMPTS` different ones.
    """
    if workload.new == 1:
        return workload.prompt / median(timed(generate, prompts(workload, seed), 1) for seed in range(1, PROMPTS + 1))
    asked = prompts(workload, 1)
    seconds = timed(generate, asked, workload.new)
    if workload.batch > 1:
        return workload.batch * workload.new / seconds
    return (workload.new - 1) / (seconds - timed(generate, asked, 1))


def timed(generate: Generate, asked: list[list[int]], new: int) -> float:
    start = time.perf_counter()
    drawn = generate(asked, new)
    seconds = time.perf_counter() - start
    if drawn != len(asked) * new:
        sys.exit(f"{drawn} tokens were generated instead of {len(asked)} times {new}")
    return seconds


def peak_mb() -> float:
    """Return this process's peak resident memory since its exec, with mapped files; ru_maxrss includes the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def emit(workload: str, **figures: float) -> None:
    print(json.dumps({"workload": workload, **{k: round(v, 3) for k, v in figures.items()}}), flush=True)
