"""Measure the speed of `gpt2lab eval` on texts and benchmarks, beside plain loops over transformers.

    python benchmarks/evaluating.py [--size 124M] [--rounds 3] [--threads 2]

Both compute in float32 with the same random weights and give the same log-probabilities, which is checked (to 1e-3).
The plain loops are those of the usual scripts: a text window by window, LAMBADA passage by passage, HellaSwag's four
endings as a padded batch of four. Shapes are those of the data sets, tokens are random. Medians with min–max, last
line JSON. Needs torch and transformers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

Scored = list[list[float]]
"""Log-probability of each ending of each item."""

WORKLOADS = {  # name: (items, context tokens, endings, tokens of each)
    "text, windows of 1024": (3, 1, 1, 1023),
    "LAMBADA": (48, 82, 1, 1),
    "HellaSwag": (16, 50, 4, 24),
}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="124M")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    ours, theirs = models(arguments.size, arguments.threads)
    report = {}
    for name, shape in WORKLOADS.items():
        items = random_items(*shape)
        ours(items[:1]), theirs(items[:1])  # warm up
        seconds: dict[str, list[float]] = {"gpt2lab": [], "transformers": []}
        for _ in range(arguments.rounds):
            found, expected = timed(ours, items, seconds["gpt2lab"]), timed(theirs, items, seconds["transformers"])
            np.testing.assert_allclose(found, expected, atol=1e-3 * shape[3])
        rates = {who: [len(items) / each for each in times] for who, times in seconds.items()}
        report[name] = {who: summary(each) for who, each in rates.items()}
        report[name]["ratio"] = round(statistics.median(rates["gpt2lab"]) / statistics.median(rates["transformers"]), 2)
        figures = ", ".join(f"{who} {report[name][who]['median']} items/s" for who in rates)
        print(f"{name:24} {figures}: {report[name]['ratio']} times", flush=True)
    print(json.dumps({"size": arguments.size, "threads": arguments.threads, **report}))


def random_items(n: int, context: int, endings: int, length: int) -> list[tuple[list[int], list[list[int]]]]:
    random = np.random.default_rng(0)
    return [
        (random.integers(0, 50257, context).tolist(), random.integers(0, 50257, (endings, length)).tolist())
        for _ in range(n)
    ]


def models(size: str, threads: int) -> tuple[Callable[[Sequence], Scored], Callable[[Sequence], Scored]]:
    """Return the two scorers, with the same weights."""
    import torch
    import transformers

    from gpt2lab.benchmarking import random_checkpoint
    from gpt2lab.engines import open_engine
    from gpt2lab.evaluating.batches import Item, score_items

    torch.set_num_threads(threads)
    checkpoint = random_checkpoint(size)
    config, engine = checkpoint.config, open_engine(checkpoint, threads=threads)
    shape = {name: getattr(config, name) for name in ("n_embd", "n_head", "n_layer")}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_positions=config.n_ctx, **shape)).eval()
    with torch.no_grad():
        for name, parameter in model.transformer.named_parameters():
            parameter.copy_(torch.from_numpy(np.array(checkpoint.tensors[name])))

    def ours(items: Sequence) -> Scored:
        return [[each.total for each in scores] for scores in score_items(engine, (Item(*item) for item in items))]

    def theirs(items: Sequence) -> Scored:
        found = []
        for context, endings in items:
            ids = torch.tensor([context + ending for ending in endings])
            with torch.no_grad():
                logits = model(ids).logits[:, :-1]
            losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
            found.append((-losses.view(len(endings), -1)[:, len(context) - 1 :].double().sum(-1)).tolist())
        return found

    return ours, theirs


def timed(score: Callable[[Sequence], Scored], items: Sequence, seconds: list[float]) -> Scored:
    begun = time.perf_counter()
    found = score(items)
    seconds.append(time.perf_counter() - begun)
    return found


def summary(rates: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(rates), 2),
        "min": round(min(rates), 2),
        "max": round(max(rates), 2),
    }


if __name__ == "__main__":
    main()
