"""Measure what speculation gains on text that repeats itself, and what it costs on text that does not.

    python benchmarks/speculation.py [--size 124M | --model NAME] [--precision int8] [--length 200] [--rounds 5]

``--size`` uses random weights, whose greedy text repeats itself at once; ``--model`` uses a real model. Every round
generates each text without and with speculation, one after the other, so that a change in the machine's load affects
both. It checks every time that the tokens are the same. Prints medians with min–max; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gpt2lab.config import RELEASED_SIZES
from gpt2lab.engines import open_engine
from gpt2lab.engines.precision import PRECISIONS
from gpt2lab.engines.protocol import Engine
from gpt2lab.generation.requests import Request
from gpt2lab.generation.scheduler import Scheduler
from gpt2lab.generation.speculation import Speculation
from gpt2lab.sampling import SamplingParams
from gpt2lab.weights import Checkpoint, open_checkpoint, tensor_shapes

TEMPERATURES = (0.0, 0.7, 1.0)
PROMPT = (3198, 1110, 262, 5822, 531, 284, 465, 4957, 11, 290, 262, 4957, 531, 284, 262, 5822, 11, 326)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="124M", choices=RELEASED_SIZES)
    parser.add_argument("--model", help="a path or a name instead of random weights")
    parser.add_argument("--precision", default="int8", choices=PRECISIONS)
    parser.add_argument("--length", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    checkpoint = open_checkpoint(arguments.model) if arguments.model else random_checkpoint(arguments.size)
    engine = open_engine(checkpoint, precision=arguments.precision)
    write(engine, TEMPERATURES[0], 16, None)  # warm up
    report = {f"temperature {t:g}": compare(engine, t, arguments.length, arguments.rounds) for t in TEMPERATURES}
    for name, result in report.items():
        print(
            f"{name:16} off {result['off']:7.1f} tokens/s, on {result['on']:7.1f}, {result['ratio']:.2f} times "
            f"({result['least']:.2f}–{result['most']:.2f}); {result['accepted']} of {result['guessed']} guesses right"
        )
    model = arguments.model or arguments.size
    print(json.dumps({"model": model, "precision": arguments.precision, "length": arguments.length, **report}))


def random_checkpoint(size: str) -> Checkpoint:
    """Return weights like GPT-2's before training."""
    config, random = RELEASED_SIZES[size], np.random.default_rng(0)

    def initial(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        if len(shape) == 1:
            return np.full(shape, name.endswith(".weight"), np.float32)  # gains 1, biases 0
        scale = 0.02 / (2 * config.n_layer) ** 0.5 if "c_proj" in name else 0.02
        return np.float32(scale) * random.standard_normal(shape, dtype=np.float32)

    tensors = {name: initial(name, shape) for name, shape in tensor_shapes(config).items()}
    return Checkpoint(config, tensors, None, "random", "float32", Path("random"))


def compare(engine: Engine, temperature: float, length: int, rounds: int) -> dict[str, float]:
    """Return tokens per second without and with speculation, and their ratio: median, least, most."""
    seconds: dict[str, list[float]] = {"off": [], "on": []}
    for seed in range(rounds):
        speculation = Speculation(engine.config)
        off, on = (write(engine, temperature, length, each, seed) for each in (None, speculation))
        if off[0] != on[0]:
            raise SystemExit("speculation: other tokens with speculation than without")
        seconds["off"].append(off[1])
        seconds["on"].append(on[1])
    ratios = [off / on for off, on in zip(seconds["off"], seconds["on"], strict=True)]
    return {
        **{name: round(length / statistics.median(times), 1) for name, times in seconds.items()},
        "ratio": round(statistics.median(ratios), 3),
        "least": round(min(ratios), 3),
        "most": round(max(ratios), 3),
        "guessed": speculation.n_guessed,
        "accepted": speculation.n_accepted,
    }


def write(
    engine: Engine, temperature: float, length: int, speculation: Speculation | None, seed: int = 0
) -> tuple[list[int], float]:
    """Return ``length`` tokens, and the seconds that they and the prompt took."""
    tokens: list[int] = []
    began = time.perf_counter()
    with Scheduler(engine, speculation=speculation) as scheduler:
        scheduler.submit(Request(PROMPT, SamplingParams(temperature=temperature), seed, 0, length))
        while scheduler.busy:
            tokens += [event.token for event in scheduler.step()]
    return tokens, time.perf_counter() - began


if __name__ == "__main__":
    main()
