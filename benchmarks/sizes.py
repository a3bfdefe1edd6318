"""Load and run every released size in every precision, with random weights, and measure speed and memory.

    python benchmarks/sizes.py [--sizes 355M 774M 1558M] [--precisions float32 int8 int4] [--threads N]

Each pair runs in a separate process, so that the peak memory is that of the pair alone. Weights are made tensor by
tensor as the engine asks for them, in time that is not counted. A pair that would not fit the free memory is left out.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt2lab.config import RELEASED_SIZES, ModelConfig
from gpt2lab.engines.native import NativeEngine
from gpt2lab.engines.precision import PRECISIONS, weight_bytes
from gpt2lab.system.cores import physical_cores
from gpt2lab.weights.checkpoint import Checkpoint, LazyTensors, StoredTensor, tensor_shapes

PREFILL = 128  # tokens
STEPS = 24


class RandomWeights:
    """Tensors cut out of one row of random numbers, and the seconds spent on cutting."""

    def __init__(self) -> None:
        self._values = 0.02 * np.random.default_rng(0).standard_normal(1_000_003, dtype=np.float32)
        self.seconds = 0.0

    def checkpoint(self, config: ModelConfig) -> Checkpoint:
        stored = {
            name: StoredTensor(shape, lambda shape=shape: self.make(shape))
            for name, shape in tensor_shapes(config).items()
        }
        return Checkpoint(config, LazyTensors(stored), None, "random", "float32", Path("random"))

    def make(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        start = time.perf_counter()
        tensor = np.resize(self._values, shape)
        self.seconds += time.perf_counter() - start
        return tensor


def measure(size: str, precision: str, threads: int) -> dict[str, float]:
    """Load and run one model in this process."""
    weights = RandomWeights()
    start = time.perf_counter()
    engine = NativeEngine(weights.checkpoint(RELEASED_SIZES[size]), precision=precision, threads=threads)
    loaded = time.perf_counter() - start - weights.seconds
    sequence = engine.new_sequence()
    start = time.perf_counter()
    engine.forward([sequence], [list(range(PREFILL))])
    prefill = time.perf_counter() - start
    times = []
    for token in range(STEPS):
        start = time.perf_counter()
        logits = engine.forward([sequence], [[token]])
        times.append(time.perf_counter() - start)
    if not np.isfinite(logits).all():
        raise SystemExit(f"sizes: {size} in {precision} computes logits that are not finite")
    return {
        "load_s": loaded,
        "prefill_tokens_s": PREFILL / prefill,
        "decode_tokens_s": 1 / float(np.median(times)),
        "peak_rss_mb": peak_rss() / 1e6,
    }


def peak_rss() -> int:
    """Return the peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def fits(config: ModelConfig, precision: str) -> bool:
    """Return whether the weights, and the largest tensor in float32 beside them, fit the free memory."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return weight_bytes(config, precision) + 4 * config.n_vocab * config.n_embd + (1 << 29) < free


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=RELEASED_SIZES, default=["355M", "774M", "1558M"])
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["float32", "int8", "int4"])
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--here", action="store_true", help="measure the one given pair in this process")
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measure(arguments.sizes[0], arguments.precisions[0], arguments.threads)))
        return
    results = []
    for size in arguments.sizes:
        for precision in arguments.precisions:
            if not fits(RELEASED_SIZES[size], precision):
                print(f"{size:>6} {precision:9} left out: not enough free memory", flush=True)
                continue
            figures = measure_apart(size, precision, arguments.threads)
            print(
                f"{size:>6} {precision:9} " + "  ".join(f"{name} {value:.1f}" for name, value in figures.items()),
                flush=True,
            )
            results.append({"size": size, "precision": precision, **{n: round(v, 2) for n, v in figures.items()}})
    print(json.dumps({"threads": arguments.threads, "results": results}))


def measure_apart(size: str, precision: str, threads: int) -> dict[str, float]:
    """Run :func:`measure` in a fresh process."""
    command = [sys.executable, __file__, "--here", "--sizes", size, "--precisions", precision]
    done = subprocess.run([*command, "--threads", str(threads)], check=True, stdout=subprocess.PIPE)
    result: dict[str, float] = json.loads(done.stdout)
    return result


if __name__ == "__main__":
    main()
