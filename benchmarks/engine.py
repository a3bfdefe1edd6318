"""The native engine beside the limits of the machine: decode against bandwidth, prefill against arithmetic.

    python benchmarks/engine.py [--size 124M] [--threads N] [--rounds 5]

Random weights of the real shape. Each round measures the limits and every workload once, one after the other, so that
a change in the machine's mood meets all alike; medians with min–max are printed, and the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from machine_limits import measure, summary

from gpt2lab.config import RELEASED_SIZES, ModelConfig
from gpt2lab.engines.native import NativeEngine, usable_cores
from gpt2lab.weights.checkpoint import Checkpoint, tensor_shapes


def random_engine(config: ModelConfig, threads: int) -> NativeEngine:
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
        for name, shape in tensor_shapes(config).items()
    }
    return NativeEngine(Checkpoint(config, tensors, None, "random", "float32", Path("random")), threads=threads)


def prefill_seconds(engine: NativeEngine, n_tokens: int) -> float:
    sequence = engine.new_sequence()
    tokens = np.arange(n_tokens, dtype=np.int32)
    start = time.perf_counter()
    engine.forward([sequence], [tokens])
    seconds = time.perf_counter() - start
    engine.free_sequence(sequence)
    return seconds


def decode_seconds(engine: NativeEngine, batch: int, steps: int = 32, context: int = 64) -> float:
    """Seconds of one step of ``batch`` sequences that hold ``context`` tokens and more."""
    sequences = [engine.new_sequence() for _ in range(batch)]
    engine.forward(sequences, [np.arange(i, i + context, dtype=np.int32) for i in range(batch)])
    times = []
    for step in range(steps):
        start = time.perf_counter()
        engine.forward(sequences, [[step + i] for i in range(batch)])
        times.append(time.perf_counter() - start)
    for sequence in sequences:
        engine.free_sequence(sequence)
    return float(np.median(times))


def bytes_per_step(config: ModelConfig, context: int = 80) -> int:
    """Bytes that one decode step must read: all weights but the position table, keys and values of the context."""
    return 4 * (config.n_params - config.n_ctx * config.n_embd) + config.kv_cache_bytes(context)


def prefill_flop(config: ModelConfig, n_tokens: int) -> float:
    """Multiplications and additions of a prompt: products of every layer, attention, the head for one token."""
    products = 2 * 12 * config.n_embd**2 * n_tokens
    attention = 2 * 2 * config.n_embd * n_tokens * (n_tokens + 1) / 2
    return config.n_layer * (products + attention) + 2 * config.n_vocab * config.n_embd


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=RELEASED_SIZES, default="124M")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    config = RELEASED_SIZES[arguments.size]
    engine = random_engine(config, arguments.threads)
    prefills = [n for n in (128, 512, 1000) if n <= config.n_ctx]
    for n in prefills:
        prefill_seconds(engine, n)  # warm-up: takes the memory that later rounds reuse

    figures: dict[str, list[float]] = defaultdict(list)
    for _ in range(arguments.rounds):
        for name, values in measure(arguments.threads, megabytes=4 * config.n_params >> 20, repeats=3).items():
            figures[name].append(float(np.median(values)))
        for batch in (1, 8):
            figures[f"decode_batch_{batch}_tokens_s"].append(batch / decode_seconds(engine, batch))
        for n in prefills:
            figures[f"prefill_{n}_tokens_s"].append(n / prefill_seconds(engine, n))
    for i in range(arguments.rounds):
        achieved = figures["decode_batch_1_tokens_s"][i] * bytes_per_step(config) / 1e9
        figures["decode_batch_1_of_read_bandwidth"].append(achieved / figures["read_gb_s"][i])
        for n in prefills:
            flops = prefill_flop(config, n) * figures[f"prefill_{n}_tokens_s"][i] / n / 1e9
            figures[f"prefill_{n}_of_float32_peak"].append(flops / figures["float32_gflop_s"][i])

    report = {name: summary(values) for name, values in figures.items()}
    for name, value in report.items():
        print(f"{name:36} {value['median']:10.2f}  ({value['min']:.2f}–{value['max']:.2f})")
    header = {"model": arguments.size, "precision": "float32", "threads": arguments.threads}
    print(json.dumps({**header, "instruction_set": engine.instruction_set, "rounds": arguments.rounds, **report}))


if __name__ == "__main__":
    main()
