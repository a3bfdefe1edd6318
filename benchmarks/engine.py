"""The native engine beside the limits of the machine: decode against bandwidth, prefill against arithmetic.

    python benchmarks/engine.py [--size 124M] [--precision int8 ...] [--threads N] [--rounds 5]

Uses random weights of the real shape, in every precision unless some are named. Each round measures the limits and
every workload once, one after the other, so that a change in the machine's load affects all alike. Prints medians with
min–max; the last line is JSON. ``gpt2lab bench`` measures the engine with what surrounds it, such as sampling.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict

import numpy as np
from limit_shares import arithmetic_limit, prefill_operations
from machine_limits import measure, summary

from gpt2lab.benchmarking import bytes_per_step, random_checkpoint
from gpt2lab.config import RELEASED_SIZES, ModelConfig
from gpt2lab.engines.native import NativeEngine
from gpt2lab.engines.precision import PRECISIONS
from gpt2lab.system.cores import physical_cores

CONTEXT, STEPS = 64, 32
BATCHES = (1, 8, 32)
PREFILLS = (128, 512, 1000)


def prefill_seconds(engine: NativeEngine, n_tokens: int) -> float:
    sequence = engine.new_sequence()
    tokens = np.arange(n_tokens, dtype=np.int32)
    start = time.perf_counter()
    engine.forward([sequence], [tokens])
    seconds = time.perf_counter() - start
    engine.free_sequence(sequence)
    return seconds


def decode_seconds(engine: NativeEngine, batch: int) -> float:
    """Return the seconds of one step of ``batch`` sequences that each hold at least CONTEXT tokens."""
    sequences = [engine.new_sequence() for _ in range(batch)]
    engine.forward(sequences, [np.arange(i, i + CONTEXT, dtype=np.int32) for i in range(batch)])
    times = []
    for step in range(STEPS):
        start = time.perf_counter()
        engine.forward(sequences, [[step + i] for i in range(batch)])
        times.append(time.perf_counter() - start)
    for sequence in sequences:
        engine.free_sequence(sequence)
    return float(np.median(times))


def measure_round(engines: dict[str, NativeEngine], config: ModelConfig, threads: int) -> dict[str, float]:
    """Measure the limits and every figure once; return them by name, such as ``"<precision> <what>"``."""
    step_bytes = {name: bytes_per_step(config, name, CONTEXT + STEPS // 2) for name in engines}
    megabytes = {name: size >> 20 for name, size in step_bytes.items()}
    figures = {n: float(np.median(v)) for n, v in measure(threads, [*megabytes.values()], repeats=3).items()}
    for name, engine in engines.items():
        for batch in BATCHES:
            figures[f"{name} decode, batch {batch}, tokens/s"] = batch / decode_seconds(engine, batch)
        achieved = figures[f"{name} decode, batch 1, tokens/s"] * step_bytes[name] / 1e9
        figures[f"{name} decode, batch 1, of read bandwidth"] = achieved / figures[f"read_gb_s_{megabytes[name]}"]
        limit = arithmetic_limit(name, figures)
        for n in PREFILLS:
            speed = n / prefill_seconds(engine, n)
            figures[f"{name} prompt of {n}, tokens/s"] = speed
            share = prefill_operations(config, n) / n * speed / 1e9 / figures[limit]
            figures[f"{name} prompt of {n}, of {limit}"] = share
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=RELEASED_SIZES, default="124M")
    parser.add_argument("--precision", choices=PRECISIONS, nargs="+", default=list(PRECISIONS))
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    checkpoint = random_checkpoint(arguments.size)
    engines = {
        name: NativeEngine(checkpoint, threads=arguments.threads, precision=name) for name in arguments.precision
    }
    for engine in engines.values():
        prefill_seconds(engine, max(PREFILLS))  # warm-up: takes the memory that later rounds reuse

    figures: dict[str, list[float]] = defaultdict(list)
    for _ in range(arguments.rounds):
        for name, value in measure_round(engines, checkpoint.config, arguments.threads).items():
            figures[name].append(value)
    report = {name: summary(values) for name, values in figures.items()}
    for name, value in report.items():
        print(f"{name:50} {value['median']:10.2f}  ({value['min']:.2f}–{value['max']:.2f})")
    header = {"model": arguments.size, "threads": arguments.threads, "rounds": arguments.rounds}
    instruction_set = next(iter(engines.values())).instruction_set
    print(json.dumps({**header, "instruction_set": instruction_set, **report}))


if __name__ == "__main__":
    main()
