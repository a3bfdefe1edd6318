"""Run requests that come, end and are dropped for minutes, and measure the process's memory, which must stay flat.

    python benchmarks/soak.py [--model tales] [--precision int8] [--minutes 10] [--seed 0]

Requests of all kinds are submitted to a scheduler at random, some are removed before or while they run, and
completions are streamed through :class:`~gpt2lab.LanguageModel`, half of them closed half-way. Thirty times, the
resident memory is printed, with counts of what has ended. The last line is JSON; ``growth_mb`` is the median of the
last third minus that of the second third. During the first third, buffers reach their size. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections import Counter

from gpt2lab.engines.lazy import Engines
from gpt2lab.engines.protocol import Engine
from gpt2lab.generation.requests import Request
from gpt2lab.generation.scheduler import Scheduler
from gpt2lab.generation.speculation import Speculation
from gpt2lab.model import LanguageModel, tokenizer_of
from gpt2lab.sampling import SamplingParams
from gpt2lab.weights import open_checkpoint

SAMPLES = 30
MOST_IN_FLIGHT = 24  # few enough that their peak memory is soon reached


def resident_mb() -> float:
    """Return the memory that this process holds now."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def random_params(rng: random.Random) -> SamplingParams:
    return SamplingParams(
        temperature=rng.choice([0.0, 0.7, 1.0]),
        top_k=rng.choice([0, 1, 40]),
        top_p=rng.choice([1.0, 0.9]),
        min_p=rng.choice([0.0, 0.05]),
        repetition_penalty=rng.choice([1.0, 1.1]),
        presence_penalty=rng.choice([0.0, 0.5]),
        logit_bias=rng.choice([{}, {50: -1.0}]),
    )


def random_request(rng: random.Random, engine: Engine) -> Request:
    """Return a request that may share its prompt with others, fill the context, or slide beyond it."""
    n_ctx, n_vocab = engine.config.n_ctx, engine.config.n_vocab
    prompt = random.Random(rng.randrange(20)).choices(range(n_vocab), k=rng.choice([1, 5, 40, n_ctx // 2]))
    slide = rng.random() < 0.1
    limit = rng.randint(1, n_ctx + 40 if slide else min(120, n_ctx - len(prompt)))
    return Request(tuple(prompt), random_params(rng), rng.getrandbits(62), rng.getrandbits(20), limit, slide)


def churn(rng: random.Random, scheduler: Scheduler, engine: Engine, alive: set[int], counts: Counter[str]) -> None:
    """Add and remove some requests, then run one step."""
    if len(alive) < MOST_IN_FLIGHT and rng.random() < 0.3:
        request = random_request(rng, engine)
        for _ in range(rng.choice([1, 1, 1, 8])):
            alive.add(scheduler.submit(request))
            counts["submitted"] += 1
    if alive and rng.random() < 0.1:
        leaving = rng.choice(sorted(alive))
        scheduler.remove(leaving)
        alive.remove(leaving)
        counts["removed"] += 1
    for event in scheduler.step() if scheduler.busy else ():
        counts["tokens"] += 1
        if event.last:
            alive.remove(event.request)
            counts["finished"] += 1


def stream_one(rng: random.Random, model: LanguageModel, counts: Counter[str]) -> None:
    """Stream a completion through the public interface; half of the time, close it half-way."""
    pieces = model.stream("Once upon a time", length=40, seed=rng.getrandbits(40))
    for taken, _ in enumerate(pieces):
        if taken == 10 and rng.random() < 0.5:
            break
    pieces.close()
    counts["streamed"] += 1


def soak(model: LanguageModel, engine: Engine, seconds: float, seed: int) -> list[float]:
    """Return the megabytes at the end of each of :data:`SAMPLES` parts of the time."""
    rng, alive, counts = random.Random(seed), set[int](), Counter[str]()
    start, sizes = time.monotonic(), list[float]()
    with Scheduler(engine, speculation=Speculation(engine.config)) as scheduler:
        while len(sizes) < SAMPLES:
            churn(rng, scheduler, engine, alive, counts)
            if rng.random() < 0.01:
                stream_one(rng, model, counts)
            elapsed = time.monotonic() - start
            if elapsed > (len(sizes) + 1) * seconds / SAMPLES:
                sizes.append(resident_mb())
                print(f"{elapsed:7.1f} s  {sizes[-1]:8.1f} MB  {dict(counts)}", flush=True)
    return sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tales")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    checkpoint = open_checkpoint(arguments.model)
    engines = Engines(checkpoint, precision=arguments.precision)
    engine = engines.generating
    sizes = soak(LanguageModel(engines, tokenizer_of(checkpoint)), engine, 60 * arguments.minutes, arguments.seed)
    third = len(sizes) // 3
    growth = statistics.median(sizes[2 * third :]) - statistics.median(sizes[third : 2 * third])
    print(json.dumps({"minutes": arguments.minutes, "precision": arguments.precision, "growth_mb": round(growth, 2)}))


if __name__ == "__main__":
    main()
