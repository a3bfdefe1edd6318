"""Scheduler and native engine together: 64 requests at once draw the same tokens as alone, in every precision."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from precision_cases import ISAS, make

from gpt2lab.config import ModelConfig
from gpt2lab.engines.native import NativeEngine
from gpt2lab.engines.precision import PRECISIONS
from gpt2lab.generation.requests import Request
from gpt2lab.generation.scheduler import Scheduler
from gpt2lab.generation.speculation import Speculation
from gpt2lab.sampling import SamplingParams
from gpt2lab.weights.checkpoint import Checkpoint, tensor_shapes

SHAPE = ModelConfig(n_vocab=90, n_ctx=80, n_embd=64, n_head=2, n_layer=2)
PARAMS = [
    SamplingParams(temperature=0),
    SamplingParams(temperature=0.3, top_k=5),
    SamplingParams(top_p=0.8, frequency_penalty=0.5),
    SamplingParams(temperature=1.5, min_p=0.1, repetition_penalty=1.3, logit_bias={3: 2.0}),
]


def random_engine(isa: str, precision: str, threads: int) -> NativeEngine:
    rng = np.random.default_rng(0)
    tensors = {n: (0.2 * rng.standard_normal(s)).astype(np.float32) for n, s in tensor_shapes(SHAPE).items()}
    return make(Checkpoint(SHAPE, tensors, None, "openai", "float32", Path("random")), isa, precision, None, threads)


def mixed_requests() -> list[Request]:
    """Make requests: some share a prompt, some repeat themselves (guesses are right), some outgrow the context."""
    rng = random.Random(1)
    prompts = [tuple(rng.choices(range(6), k=length)) for length in (1, 2, 30, 33, 79)]
    return [
        Request(rng.choice(prompts), rng.choice(PARAMS), seed=5, stream=stream, limit=rng.randint(1, 60), slide=True)
        for stream in range(64)
    ]


def draw(
    engine: NativeEngine, requests: list[Request], speculation: Speculation | None, batch_size: int | None = None
) -> list[list[int]]:
    drawn: dict[int, list[int]] = {}
    with Scheduler(engine, speculation=speculation, batch_size=batch_size) as scheduler:
        for wanted in requests:
            drawn[scheduler.submit(wanted)] = []
        while scheduler.busy:
            for event in scheduler.step():
                drawn[event.request].append(event.token)
    return list(drawn.values())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("isa", ISAS)
def test_64_mixed_requests_at_once_draw_what_each_draws_alone(isa, precision):
    alone, one, two = (random_engine(isa, precision, threads) for threads in (1, 1, 2))
    wanted = mixed_requests()
    expected = [draw(alone, [request], None)[0] for request in wanted]
    assert draw(one, wanted, None, batch_size=7) == expected
    assert draw(two, wanted, None) == expected
    for batch_size in (3, None):
        assert draw(one, wanted, Speculation(SHAPE, None), batch_size) == expected
    assert draw(one, wanted, Speculation(SHAPE, alone)) == expected
    assert [engine.kv_cache_bytes for engine in (alone, one, two)] == [0, 0, 0]
