"""Shared parts of the tests of precisions: all cases, engines with random weights, and functions that feed them."""

from __future__ import annotations

import functools
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from quantized import bfloat16_ways

from gpt2lab import _native
from gpt2lab.config import ModelConfig
from gpt2lab.engines.native import NativeEngine
from gpt2lab.engines.precision import KV_PRECISIONS, PRECISIONS
from gpt2lab.engines.protocol import Draw
from gpt2lab.sampling import SamplingParams
from gpt2lab.weights.checkpoint import Checkpoint, tensor_shapes

ISAS = _native.instruction_sets()
GREEDY = SamplingParams(temperature=0)
EVERY = pytest.mark.parametrize(
    ("isa", "precision", "kv_precision"), [(i, p, kv) for i in ISAS for p in PRECISIONS for kv in KV_PRECISIONS]
)
EVERY_WAY = pytest.mark.parametrize(  # ``given`` only where it makes a difference
    ("isa", "precision", "kv_precision", "given"),
    [
        (isa, precision, kv_precision, given)
        for isa in ISAS
        for precision in PRECISIONS
        for kv_precision in KV_PRECISIONS
        for given in sorted({False, bfloat16_ways(isa, precision) == (True, False)})
    ],
)
EVERY_PRODUCT = pytest.mark.parametrize(("isa", "precision", "given"), list(product(ISAS, PRECISIONS, [False, True])))
SHAPE = ModelConfig(n_vocab=77, n_ctx=100, n_embd=72, n_head=3, n_layer=2)


@functools.lru_cache(maxsize=4)
def random_tensors(config: ModelConfig, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: (0.1 * rng.standard_normal(shape)).astype(np.float32) for name, shape in tensor_shapes(config).items()
    }


def random_checkpoint(config: ModelConfig, seed: int = 0) -> Checkpoint:
    tensors = {name: tensor.copy() for name, tensor in random_tensors(config, seed).items()}  # tests change them
    return Checkpoint(config, tensors, None, "openai", "float32", Path("random"))


def make(checkpoint: Checkpoint, isa: str, precision: str, kv_precision: str | None = "float32", threads: int = 1):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPT2LAB_ISA", isa)
        return NativeEngine(checkpoint, precision=precision, kv_precision=kv_precision, threads=threads)


def run(engine: NativeEngine, prompts: list[list[int]], *, given: bool = False) -> list[np.ndarray]:
    """Return the logits of every token of every prompt, all fed in one call."""
    sequences = [engine.new_sequence() for _ in prompts]
    logits = engine.forward(sequences, prompts, "all", given=given)
    for sequence in sequences:
        engine.free_sequence(sequence)
    return np.split(logits, np.cumsum([len(prompt) for prompt in prompts])[:-1])


def step(
    engine: NativeEngine,
    sequences: list[int],
    tokens: list[list[int]],
    given: list[int],
    n_guesses: list[int] | None = None,
) -> list[np.ndarray]:
    """Return log-probabilities ``[n_vocab]`` after the last token of each sequence that is not a guess."""
    n_vocab = engine.config.n_vocab
    counts = [1 + n for n in n_guesses or [0] * len(sequences)]
    drawn = engine.step(sequences, tokens, [Draw(GREEDY, 0, 0, 0, (), n, n_vocab) for n in counts], given)
    rows = np.empty((len(sequences), n_vocab), np.float32)
    for row, (first, *_) in zip(rows, drawn, strict=True):
        ids, logprobs = zip(*first.top, strict=True)
        row[list(ids)] = logprobs
    return list(rows)


@functools.cache
def engines(isa: str, precision: str, kv_precision: str) -> dict[int, NativeEngine]:
    checkpoint = random_checkpoint(SHAPE)
    return {threads: make(checkpoint, isa, precision, kv_precision, threads) for threads in (1, 2, 3)}
