"""Forks that run in one batch read their common beginning once: each row equals that of the same text alone."""

from __future__ import annotations

import numpy as np
import pytest
from precision_cases import EVERY, EVERY_PRODUCT, SHAPE, make, random_checkpoint

from gpt2lab.config import ModelConfig
from gpt2lab.engines.native import NativeEngine

LONG = ModelConfig(n_vocab=60, n_ctx=360, n_embd=40, n_head=2, n_layer=1)


def fork_after(engine: NativeEngine, sequence: int, prefix: list[int], n_forks: int) -> dict[int, list[int]]:
    """Return ``sequence`` and forks of it, each with its text so far; all but the first have tokens of their own."""
    texts = {sequence: list(prefix)}
    for number in range(n_forks):
        fork = engine.fork_sequence(sequence)
        own = [(7 * number + i) % 50 for i in range(number * 5 % 40)]
        if own:
            engine.forward([fork], [own], "none")
        texts[fork] = prefix + own
    return texts


def expect_rows_of_each_text(engine: NativeEngine, texts: dict[int, list[int]], steps: int = 2) -> None:
    """Feed one token to every sequence at once, a few times; compare with each text fed to an empty cache."""
    for step in range(steps):
        tokens = [[(3 * i + step) % 50] for i in range(len(texts))]
        logits = engine.forward(list(texts), tokens)
        for text, token in zip(texts.values(), tokens, strict=True):
            text += token
        for text, row in zip(texts.values(), logits, strict=True):
            alone = engine.new_sequence()
            np.testing.assert_array_equal(row, engine.forward([alone], [text])[0])
            engine.free_sequence(alone)


@EVERY
def test_forks_in_one_batch_have_the_rows_of_their_texts(isa, precision, kv_precision):
    engine = make(random_checkpoint(SHAPE), isa, precision, kv_precision, threads=2)
    prefix = [i * i % 70 for i in range(50)]
    sequence = engine.new_sequence()
    engine.forward([sequence], [prefix], "none")
    texts = fork_after(engine, sequence, prefix, 15)
    stranger = engine.new_sequence()
    engine.forward([stranger], [prefix[:40]], "none")  # equal tokens in other blocks
    expect_rows_of_each_text(engine, {stranger: prefix[:40], **texts})


@EVERY
def test_forks_of_forks_share_beginnings_of_different_lengths(isa, precision, kv_precision):
    engine = make(random_checkpoint(SHAPE), isa, precision, kv_precision, threads=3)
    prefix = [i % 7 for i in range(33)]
    sequence = engine.new_sequence()
    engine.forward([sequence], [prefix], "none")
    texts = fork_after(engine, sequence, prefix, 3)
    branch = list(texts)[2]
    engine.forward([branch], [[5] * 33], "none")
    texts |= fork_after(engine, branch, texts[branch] + [5] * 33, 2)
    expect_rows_of_each_text(engine, texts)


@EVERY_PRODUCT
@pytest.mark.parametrize("n_shared", [32, 256, 300])
def test_common_beginnings_of_several_spans(n_shared, isa, precision):
    engine = make(random_checkpoint(LONG), isa, precision, "int8", threads=2)
    prefix = [i * i % 50 for i in range(n_shared)]
    sequence = engine.new_sequence()
    engine.forward([sequence], [prefix], "none")
    expect_rows_of_each_text(engine, fork_after(engine, sequence, prefix, 4), steps=1)
