"""The speed of a model on this machine: decode, a batch, prefill.

Everything goes through :meth:`LanguageModel.pieces <gpt2lab.LanguageModel.pieces>`, greedily and without speculation,
so the figures are what a user gets for a text that does not repeat itself. A decode step reads every weight once; the
resulting bytes per second are reported too, for comparison with the machine's memory bandwidth. To measure other
programs, use ``benchmarks/peers.py``.
"""

from __future__ import annotations

import random
import statistics
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gpt2lab.config import RELEASED_SIZES, ModelConfig, canonical_size
from gpt2lab.engines.precision import default_kv_precision, weight_bytes
from gpt2lab.errors import UsageError
from gpt2lab.weights.checkpoint import Checkpoint, LazyTensors, StoredTensor, Tensor, tensor_shapes

if TYPE_CHECKING:
    from gpt2lab.model import LanguageModel


@dataclass(frozen=True)
class Workload:
    """``batch`` prompts of ``prompt`` random ids, each completed by ``new`` tokens."""

    name: str
    batch: int
    prompt: int
    new: int


@dataclass(frozen=True)
class Speed:
    """The speed of one workload.

    ``tokens_s`` has a figure for each round: the prompt's tokens, or the drawn ones, per second; for a single sequence
    the time for its prompt is excluded. ``gb_s`` is the weights, keys and values read per second; None where a step's
    tokens share them.
    """

    workload: Workload
    tokens_s: list[float]
    gb_s: float | None

    def summary(self) -> dict[str, float]:
        """Return the median, smallest and largest tokens per second."""
        figures = {"median": statistics.median(self.tokens_s), "min": min(self.tokens_s), "max": max(self.tokens_s)}
        return {name: round(figure, 2) for name, figure in figures.items()}


LEAST_CONTEXT = 4
"""The smallest context, in tokens, that holds a prompt and enough tokens after it to time the two separately."""


def workloads(n_ctx: int) -> list[Workload]:
    """Return the workloads: one sequence, a batch of 8, and a prompt of 512 tokens, each cut to the context.

    Raises :class:`UsageError` if the context is too short.
    """
    if n_ctx < LEAST_CONTEXT:
        raise UsageError(f"a context of {n_ctx} tokens is too short to be timed: at least {LEAST_CONTEXT} are needed")
    start = min(16, n_ctx // 2)
    return [
        Workload("decode", 1, start, min(128, n_ctx - start)),
        Workload("batch of 8", 8, start, min(64, n_ctx - start)),
        Workload("prompt", 1, min(512, n_ctx - 1), 1),
    ]


def measure(model: LanguageModel, rounds: int) -> Iterator[Speed]:
    """Run every workload once to warm up and then ``rounds`` times.

    Raises :class:`UsageError` at once for ``rounds`` below 1 or a context that is too short.
    """
    if rounds < 1:
        raise UsageError(f"rounds must be at least 1, got {rounds}")
    return _measure(model, workloads(model.config.n_ctx), rounds)


def _measure(model: LanguageModel, workloads: Sequence[Workload], rounds: int) -> Iterator[Speed]:
    for workload in workloads:
        _times(model, workload, min(workload.new, 4))
        speeds = [_tokens_per_second(model, workload) for _ in range(rounds)]
        gb_s = None
        if workload.batch == 1 and workload.new > 1:
            context = workload.prompt + workload.new // 2
            gb_s = bytes_per_step(model.config, model.precision, context) * statistics.median(speeds) / 1e9
        yield Speed(workload, speeds, gb_s)


def bytes_per_step(config: ModelConfig, precision: str, context: int, batch: int = 1) -> int:
    """Return the bytes that one decode step of ``batch`` sequences with ``context`` tokens each must read.

    These are all weights except embeddings that make no logits, and the KV cache in the default precision.
    """
    kv = config.kv_cache_bytes(context, default_kv_precision(precision))
    read = weight_bytes(replace(config, tie_word_embeddings=True), precision)  # without a second matrix of this shape
    return read - 4 * config.n_ctx * config.n_embd + batch * kv


def random_checkpoint(size: str) -> Checkpoint:
    """Return a model of a released size (``"124M"``) with random weights, which take no memory until they are read.

    Raises :class:`UsageError` if there is no such size.
    """
    name = canonical_size(size)
    if name is None:
        raise UsageError(f"unknown size {size!r}; released sizes are {', '.join(RELEASED_SIZES)}")
    config = RELEASED_SIZES[name]
    tensors = {
        name: StoredTensor(shape, partial(_initial, name, shape)) for name, shape in tensor_shapes(config).items()
    }
    path = Path(f"random {name}")
    return Checkpoint(config, LazyTensors(path, tensors), None, "random", "float32", path)


def _initial(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return a tensor as it is before training: gains 1, biases 0, matrices normal with standard deviation 0.02.

    The normal numbers of a matrix repeat after 65,521, which is quick to generate and does not affect the speed.
    """
    if len(shape) == 1:
        return np.full(shape, name.endswith(".weight"), np.float32)
    numbers = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(65521, np.float32)
    return np.resize(numbers * np.float32(0.02), shape)


def _tokens_per_second(model: LanguageModel, workload: Workload) -> float:
    """Return the prompt's speed if one token is drawn, else the decode speed; one sequence counts after its first."""
    first, last = _times(model, workload, workload.new)
    if workload.new == 1:
        return workload.prompt / last
    if workload.batch > 1:
        return workload.batch * workload.new / last
    return (workload.new - 1) / (last - first)


def _times(model: LanguageModel, workload: Workload, new: int) -> tuple[float, float]:
    """Return the seconds until the first token and until all: ``new`` tokens after each of the workload's prompts."""
    ids = random.Random(0)
    prompts = [[ids.randrange(model.config.n_vocab) for _ in range(workload.prompt)] for _ in range(workload.batch)]
    start = time.perf_counter()
    pieces = model.pieces(prompts, length=new, temperature=0.0, ignore_eos=True, speculation="off")
    next(pieces)
    first = time.perf_counter() - start
    for _ in pieces:
        pass
    return first, time.perf_counter() - start
