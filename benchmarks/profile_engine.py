"""Where a forward pass of the native engine spends its time: the parts of a prompt, or of a step of a batch.

    python benchmarks/profile_engine.py [--size 124M] [--precision int8 ...] [--prompts 512 1000] [--batches 8 32]

Uses random weights of the real shape. Prints, for each precision and workload, the milliseconds of each part, which is
the mean over the threads, and its share of the pass; medians of ``--rounds`` rounds. The last line is JSON.

The parts: ``norms`` are layer norms with the rounding of their output to the next product's inputs; ``inputs`` is the
same rounding elsewhere; ``unpacking`` turns int4 weights into int8 ones; ``products`` are the rest of the products up
to the sums; ``finishing`` is what follows each sum (activation, addition to the residual stream, store), where a kernel
does that separately, as those with integers do, except for those with tiles; ``cache`` stores keys and values; ``head``
is the product that gives the logits; ``waiting`` is for other threads; ``other`` is the rest.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable

import numpy as np

from gpt2lab.benchmarking import random_checkpoint
from gpt2lab.config import RELEASED_SIZES
from gpt2lab.engines.native import NativeEngine
from gpt2lab.engines.precision import PRECISIONS
from gpt2lab.system.cores import physical_cores

CONTEXT, STEPS = 64, 8
Parts = dict[str, float]


def profile(engine: NativeEngine, work: Callable[[], object]) -> Parts:
    """Return the seconds of each part, the mean over the threads."""
    engine.start_meters()
    work()
    return {name: statistics.fmean(seconds) for name, seconds in engine.stop_meters().items()}


def prompt(engine: NativeEngine, n_tokens: int) -> Parts:
    sequence = engine.new_sequence()
    try:
        return profile(engine, lambda: engine.forward([sequence], [np.arange(n_tokens, dtype=np.int32)]))
    finally:
        engine.free_sequence(sequence)


def batch(engine: NativeEngine, n_sequences: int) -> Parts:
    """Return the parts of one step, the mean over STEPS steps, of sequences that hold at least CONTEXT tokens."""
    sequences = [engine.new_sequence() for _ in range(n_sequences)]

    def steps() -> None:
        for step in range(STEPS):
            engine.forward(sequences, [[step + i] for i in range(n_sequences)])

    try:
        engine.forward(sequences, [np.arange(i, i + CONTEXT, dtype=np.int32) for i in range(n_sequences)])
        return {name: seconds / STEPS for name, seconds in profile(engine, steps).items()}
    finally:
        for sequence in sequences:
            engine.free_sequence(sequence)


def medians(rounds: list[Parts]) -> Parts:
    return {name: round(1e3 * statistics.median(parts[name] for parts in rounds), 3) for name in rounds[0]}


def report(label: str, parts: Parts) -> None:
    total = sum(parts.values())
    shown = (f"{name} {ms:.2f} ({ms / total:.0%})" for name, ms in parts.items() if ms / total > 0.005)
    print(f"{label:24} {total:8.2f} ms: {', '.join(shown)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=RELEASED_SIZES, default="124M")
    parser.add_argument("--precision", choices=PRECISIONS, nargs="+", default=list(PRECISIONS))
    parser.add_argument("--prompts", type=int, nargs="*", default=[512, 1000])
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8, 32])
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    checkpoint = random_checkpoint(arguments.size)
    report_of: dict[str, Parts] = {}
    for precision in arguments.precision:
        engine = NativeEngine(checkpoint, threads=arguments.threads, precision=precision)
        works = [(f"prompt of {n}", prompt, n) for n in arguments.prompts]
        works += [(f"batch of {n}", batch, n) for n in arguments.batches]
        for name, work, size in works:
            work(engine, size)  # warm-up: takes the memory that later rounds reuse
            label = f"{precision} {name}"
            report_of[label] = medians([work(engine, size) for _ in range(arguments.rounds)])
            report(label, report_of[label])
    header = {"model": arguments.size, "threads": arguments.threads, "rounds": arguments.rounds}
    print(json.dumps({**header, "instruction_set": engine.instruction_set, "milliseconds": report_of}))


if __name__ == "__main__":
    main()
