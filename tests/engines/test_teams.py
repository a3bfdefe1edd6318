"""Long prompts: teams of threads divide their rows, MLPs may go in parts, and the bits are those of short chunks."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from precision_cases import EVERY_PRODUCT, ISAS, make, random_checkpoint

from gpt2lab.config import ModelConfig
from gpt2lab.engines.hooks import SITES, Edit
from gpt2lab.engines.native import NativeEngine

LONG = ModelConfig(n_vocab=61, n_ctx=620, n_embd=64, n_head=2, n_layer=2)
NARROW = ModelConfig(n_vocab=61, n_ctx=300, n_embd=36, n_head=3, n_layer=2, n_inner=8)
WIDE = ModelConfig(n_vocab=61, n_ctx=300, n_embd=36, n_head=3, n_layer=2, n_inner=1545)  # three parts, the last one odd
OTHER = ModelConfig(n_vocab=61, n_ctx=300, n_embd=36, n_head=3, n_layer=2, n_inner=1100, activation="gelu")
THREADS = (2, 3, 4, 6)  # of 512 rows: 2 teams of one thread, 1 of three, 4 of one, 2 of three
CHUNK = 40  # rows for which the threads are one team


@functools.lru_cache(maxsize=8)
def engine(config: ModelConfig, isa: str, precision: str, threads: int) -> NativeEngine:
    return make(random_checkpoint(config), isa, precision, None, threads)


def prompt(config: ModelConfig, count: int) -> list[int]:
    return np.random.default_rng(count).integers(0, config.n_vocab, count).tolist()


def in_chunks(engine: NativeEngine, tokens: list[int]) -> np.ndarray:
    sequence = engine.new_sequence()
    parts = [tokens[first : first + CHUNK] for first in range(0, len(tokens), CHUNK)]
    logits = [engine.forward([sequence], [part], "all") for part in parts]
    engine.free_sequence(sequence)
    return np.concatenate(logits)


def at_once(engine: NativeEngine, prompts: list[list[int]]) -> np.ndarray:
    sequences = [engine.new_sequence() for _ in prompts]
    logits = engine.forward(sequences, prompts, "all")
    for sequence in sequences:
        engine.free_sequence(sequence)
    return logits


@pytest.mark.parametrize("config", [LONG, NARROW, WIDE, OTHER], ids=["long", "narrow", "wide", "other"])
@EVERY_PRODUCT
def test_long_prompts_have_the_bits_of_short_chunks(isa, precision, config):
    prompts = [prompt(config, count) for count in (config.n_ctx, 3, config.n_ctx - 11)]
    alone = engine(config, isa, precision, 1)
    expected = np.concatenate([in_chunks(alone, tokens) for tokens in prompts])
    for threads in (1, *THREADS):
        found = at_once(engine(config, isa, precision, threads), prompts)
        np.testing.assert_array_equal(found, expected, err_msg=f"{threads} threads")


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("threads", THREADS)
def test_edits_and_records_of_long_prompts_are_those_of_one_thread(precision, threads):
    tokens = prompt(LONG, 600)

    def recorded(threads: int) -> list[np.ndarray]:
        each = engine(LONG, ISAS[-1], precision, threads)
        sequence = each.new_sequence()
        edits = [
            Edit(site, 1, add=True, column=3, first=number, values=np.full((500, 2), 0.5, np.float32))
            for number, site in enumerate(SITES)
        ]
        each.edit_sequence(sequence, edits)
        found = each.record(sequence, tokens, SITES)
        each.free_sequence(sequence)
        return list(found.values())

    for one, several in zip(recorded(1), recorded(threads), strict=True):
        np.testing.assert_array_equal(several, one)


@pytest.mark.parametrize("rows", [300, 512, 600])
def test_logits_of_long_rows_of_the_residual_stream_are_those_of_one_thread(rows):
    x = np.random.default_rng(0).standard_normal((rows, LONG.n_embd), np.float32)
    one, several = (engine(LONG, ISAS[-1], "float32", threads) for threads in (1, 4))
    np.testing.assert_array_equal(several.unembed(x), one.unembed(x))
    np.testing.assert_array_equal(several.compare(x), one.compare(x))
