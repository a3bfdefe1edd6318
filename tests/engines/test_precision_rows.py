"""In every precision and instruction set a row depends only on its own sequence, bit for bit."""

from __future__ import annotations

import numpy as np
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st
from precision_cases import EVERY, EVERY_PRODUCT, EVERY_WAY, SHAPE, engines, make, random_checkpoint, run, step

from gpt2lab.config import ModelConfig
from gpt2lab.engines.native import NativeEngine


def one_by_one(engine: NativeEngine, prompt: list[int], *, given: bool = False) -> np.ndarray:
    """Return the logits of every token, each fed by itself."""
    sequence = engine.new_sequence()
    rows = [engine.forward([sequence], [[token]], given=given) for token in prompt]
    engine.free_sequence(sequence)
    return np.concatenate(rows)


@EVERY_WAY
@examples(data=st.data())
@settings(max_examples=5, deadline=None)
def test_neighbours_chunks_and_threads_change_nothing(isa, precision, kv_precision, given, data):
    made = engines(isa, precision, kv_precision)
    n_prompts = data.draw(st.one_of(st.integers(1, 4), st.integers(1, 40)))
    length = st.integers(1, 90 if n_prompts < 5 else 9)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    prompts = [rng.integers(0, SHAPE.n_vocab, data.draw(length)).tolist() for _ in range(n_prompts)]
    engine = made[data.draw(st.sampled_from([1, 2, 3]))]
    sequences = [engine.new_sequence() for _ in prompts]
    rows: list[list[np.ndarray]] = [[] for _ in prompts]
    while unfinished := [i for i, prompt in enumerate(prompts) if len(rows[i]) < len(prompt)]:
        fed = {}
        for i in unfinished:
            rest = prompts[i][len(rows[i]) :]
            fed[i] = rest[: data.draw(st.integers(1, len(rest)))]
        logits = engine.forward([sequences[i] for i in fed], list(fed.values()), "all", given=given)
        for i, part in zip(fed, np.split(logits, np.cumsum([len(ids) for ids in fed.values()])[:-1]), strict=True):
            rows[i].extend(part)
    for sequence in sequences:
        engine.free_sequence(sequence)
    for prompt, got in zip(prompts, rows, strict=True):
        np.testing.assert_array_equal(got, one_by_one(made[1], prompt, given=given))


def alone(engine: NativeEngine, tokens: list[int], n_given: int) -> np.ndarray:
    """Return log-probabilities after every token, each fed by itself: ``[len(tokens), n_vocab]``."""
    sequence = engine.new_sequence()
    rows = [step(engine, [sequence], [[token]], [int(i < n_given)])[0] for i, token in enumerate(tokens)]
    engine.free_sequence(sequence)
    return np.array(rows)


@EVERY
@examples(data=st.data())
@settings(max_examples=5, deadline=None)
def test_what_is_drawn_behind_prompts_depends_on_neither_chunks_nor_guesses_nor_neighbours(
    isa, precision, kv_precision, data
):
    """Run steps with parts of prompts, drawn tokens, both in one sequence, and guesses that are removed again."""
    made = engines(isa, precision, kv_precision)
    engine = made[data.draw(st.sampled_from([1, 2, 3]))]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    n_texts = data.draw(st.one_of(st.integers(1, 4), st.integers(1, 40)))
    length = 60 if n_texts < 5 else 9
    texts = [rng.integers(0, SHAPE.n_vocab, rng.integers(1, length + 1)).tolist() for _ in range(n_texts)]
    n_given = [int(rng.integers(0, len(text) + 1)) for text in texts]
    expected = [alone(made[1], text, n) for text, n in zip(texts, n_given, strict=True)]
    sequences = [engine.new_sequence() for _ in texts]
    n_fed = [0] * n_texts
    while unfinished := [i for i in range(n_texts) if n_fed[i] < len(texts[i])]:
        ends = [int(rng.integers(n_fed[i], len(texts[i]))) + 1 for i in unfinished]
        tokens = [texts[i][n_fed[i] : end] for i, end in zip(unfinished, ends, strict=True)]
        given = [min(max(n_given[i] - n_fed[i], 0), len(ids)) for i, ids in zip(unfinished, tokens, strict=True)]
        guesses = [
            rng.integers(0, SHAPE.n_vocab, rng.integers(0, 4)).tolist() if g < len(ids) else []
            for g, ids in zip(given, tokens, strict=True)
        ]
        fed = [sequences[i] for i in unfinished]
        got = step(engine, fed, [a + b for a, b in zip(tokens, guesses, strict=True)], given, list(map(len, guesses)))
        for i, end, row in zip(unfinished, ends, got, strict=True):
            np.testing.assert_array_equal(row, expected[i][end - 1])
            engine.truncate_sequence(sequences[i], end)
            n_fed[i] = end
    for sequence in sequences:
        engine.free_sequence(sequence)


@EVERY_WAY
def test_every_number_of_rows_gives_the_same_row(isa, precision, kv_precision, given):
    engine = engines(isa, precision, kv_precision)[2]
    expected = one_by_one(engine, [5], given=given)[0]
    for n_rows in [*range(2, 36), 47, 48, 49, 63, 64, 65]:
        prompts = [[5]] + [[i % SHAPE.n_vocab] for i in range(n_rows - 1)]
        np.testing.assert_array_equal(run(engine, prompts, given=given)[0][0], expected)


@EVERY_WAY
@examples(
    shared=st.integers(1, 40), grown=st.lists(st.integers(0, 76), min_size=1, max_size=40), keep=st.integers(0, 80)
)
@settings(max_examples=3, deadline=None)
def test_forks_and_truncation_change_nothing(isa, precision, kv_precision, given, shared, grown, keep):
    made = engines(isa, precision, kv_precision)
    alone, engine = made[1], made[2]
    prompt = [i % 70 for i in range(shared)]
    sequence = engine.new_sequence()
    engine.forward([sequence], [prompt], "none", given=given)
    fork = engine.fork_sequence(sequence)
    engine.forward([sequence], [[1] * 20], "none", given=not given)
    logits = engine.forward([fork], [grown], "all", given=given)
    np.testing.assert_array_equal(logits, one_by_one(alone, prompt + grown, given=given)[shared:])
    keep = min(keep, shared + len(grown))
    engine.truncate_sequence(fork, keep)
    engine.free_sequence(sequence)
    logits = engine.forward([fork], [[7, 8, 9]], "all", given=given)
    expected = one_by_one(alone, [*(prompt + grown)[:keep], 7, 8, 9], given=given)
    np.testing.assert_array_equal(logits, expected[keep:])
    engine.free_sequence(fork)


@EVERY_PRODUCT
def test_wide_products_do_not_depend_on_the_number_of_rows(precision, isa, given):
    config = ModelConfig(n_vocab=50, n_ctx=40, n_embd=800, n_head=10, n_layer=1)
    one, two = (make(random_checkpoint(config), isa, precision, threads=threads) for threads in (1, 2))
    tokens = list(range(40))
    np.testing.assert_array_equal(run(two, [tokens], given=given)[0], one_by_one(one, tokens, given=given))


@EVERY_PRODUCT
def test_more_rows_than_one_pass_holds(precision, isa, given):
    config = ModelConfig(n_vocab=40, n_ctx=1300, n_embd=40, n_head=2, n_layer=1)
    engine = make(random_checkpoint(config), isa, precision, threads=2)
    tokens = [i % 40 for i in range(1300)]
    (whole,) = run(engine, [tokens], given=given)
    sequence = engine.new_sequence()
    parts = [engine.forward([sequence], [tokens[i : i + 130]], "all", given=given) for i in range(0, 1300, 130)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
