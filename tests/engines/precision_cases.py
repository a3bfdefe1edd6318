"""Shared parts of the tests of precisions: all cases, engines with random weights, and functions that feed them."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from gpt2lab import _native
from gpt2lab.config import ModelConfig
from gpt2lab.engines.native import NativeEngine
from gpt2lab.engines.precision import KV_PRECISIONS, PRECISIONS
from gpt2lab.weights.checkpoint import Checkpoint, tensor_shapes

ISAS = _native.instruction_sets()
EXACT = ("float32", "int8", "int4")
"""The precisions of :mod:`gpt2lab.contract`; the bits of bfloat16 depend on whether a matrix unit multiplies."""
EXACT_KV = tuple(kv for kv in KV_PRECISIONS if kv != "bfloat16")
"""The precisions of keys and values that go with every precision of weights; bfloat16 goes with bfloat16 only."""
PAIRS = [(p, kv) for p in PRECISIONS for kv in (KV_PRECISIONS if p == "bfloat16" else EXACT_KV)]
EVERY = pytest.mark.parametrize(("isa", "precision", "kv_precision"), [(i, *pair) for i in ISAS for pair in PAIRS])
EVERY_PRODUCT = pytest.mark.parametrize(("isa", "precision"), [(i, p) for i in ISAS for p in PRECISIONS])
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


def run(engine: NativeEngine, prompts: list[list[int]]) -> list[np.ndarray]:
    """Return the logits of every token of every prompt, all fed in one call."""
    sequences = [engine.new_sequence() for _ in prompts]
    logits = engine.forward(sequences, prompts, "all")
    for sequence in sequences:
        engine.free_sequence(sequence)
    return np.split(logits, np.cumsum([len(prompt) for prompt in prompts])[:-1])


@functools.cache
def engines(isa: str, precision: str, kv_precision: str) -> dict[int, NativeEngine]:
    checkpoint = random_checkpoint(SHAPE)
    return {threads: make(checkpoint, isa, precision, kv_precision, threads) for threads in (1, 2, 3)}
