"""In every precision and instruction set a row depends only on its own sequence, bit for bit."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from precision_cases import EVERY, EVERY_PRODUCT, SHAPE, engines, make, random_checkpoint, run

from gpt2lab.config import ModelConfig
from gpt2lab.engines.native import NativeEngine
from gpt2lab.engines.protocol import Draw
from gpt2lab.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0)


def one_by_one(engine: NativeEngine, prompt: list[int]) -> np.ndarray:
    """Return the logits of every token, each fed by itself."""
    sequence = engine.new_sequence()
    rows = [engine.forward([sequence], [[token]]) for token in prompt]
    engine.free_sequence(sequence)
    return np.concatenate(rows)


@EVERY
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_neighbours_chunks_and_threads_change_nothing(isa, precision, kv_precision, data):
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
        logits = engine.forward([sequences[i] for i in fed], list(fed.values()), "all")
        for i, part in zip(fed, np.split(logits, np.cumsum([len(ids) for ids in fed.values()])[:-1]), strict=True):
            rows[i].extend(part)
    for sequence in sequences:
        engine.free_sequence(sequence)
    for prompt, got in zip(prompts, rows, strict=True):
        np.testing.assert_array_equal(got, one_by_one(made[1], prompt))


@EVERY
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_steps_depend_on_neither_chunks_nor_guesses_nor_neighbours(isa, precision, kv_precision, data):
    """Run steps with parts of prompts and guesses that are removed again."""
    made = engines(isa, precision, kv_precision)
    engine = made[data.draw(st.sampled_from([1, 2, 3]))]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    n_texts = data.draw(st.one_of(st.integers(1, 4), st.integers(1, 40)))
    length = 60 if n_texts < 5 else 9
    texts = [rng.integers(0, SHAPE.n_vocab, rng.integers(1, length + 1)).tolist() for _ in range(n_texts)]
    expected = [stepped_one_by_one(made[1], text) for text in texts]
    sequences = [engine.new_sequence() for _ in texts]
    n_fed = [0] * n_texts
    while unfinished := [i for i in range(n_texts) if n_fed[i] < len(texts[i])]:
        ends = [int(rng.integers(n_fed[i], len(texts[i]))) + 1 for i in unfinished]
        tokens = [texts[i][n_fed[i] : end] for i, end in zip(unfinished, ends, strict=True)]
        guesses = [rng.integers(0, SHAPE.n_vocab, rng.integers(0, 4)).tolist() for _ in tokens]
        got = step(engine, [sequences[i] for i in unfinished], tokens, guesses)
        for i, end, row in zip(unfinished, ends, got, strict=True):
            np.testing.assert_array_equal(row, expected[i][end - 1])
            engine.truncate_sequence(sequences[i], end)
            n_fed[i] = end
    for sequence in sequences:
        engine.free_sequence(sequence)


def stepped_one_by_one(engine: NativeEngine, tokens: list[int]) -> list[np.ndarray]:
    """Return log-probabilities after every token, each fed by a step of its own."""
    sequence = engine.new_sequence()
    rows = [step(engine, [sequence], [[token]], [[]])[0] for token in tokens]
    engine.free_sequence(sequence)
    return rows


def step(
    engine: NativeEngine, sequences: list[int], tokens: list[list[int]], guesses: list[list[int]]
) -> list[np.ndarray]:
    """Feed tokens and guesses; return log-probabilities ``[n_vocab]`` after the last token of each sequence."""
    n_vocab = engine.config.n_vocab
    draws = [Draw(GREEDY, 0, 0, 0, (), 1 + len(ids), n_vocab) for ids in guesses]
    rows = np.empty((len(sequences), n_vocab), np.float32)
    fed = [ids + guessed for ids, guessed in zip(tokens, guesses, strict=True)]
    for row, (first, *_) in zip(rows, engine.step(sequences, fed, draws), strict=True):
        ids, logprobs = zip(*first.top, strict=True)
        row[list(ids)] = logprobs
    return list(rows)


@EVERY
def test_every_number_of_rows_gives_the_same_row(isa, precision, kv_precision):
    engine = engines(isa, precision, kv_precision)[2]
    expected = one_by_one(engine, [5])[0]
    for n_rows in [*range(2, 36), 47, 48, 49, 63, 64, 65]:
        prompts = [[5]] + [[i % SHAPE.n_vocab] for i in range(n_rows - 1)]
        np.testing.assert_array_equal(run(engine, prompts)[0][0], expected)


@EVERY
@given(shared=st.integers(1, 40), grown=st.lists(st.integers(0, 76), min_size=1, max_size=40), keep=st.integers(0, 80))
@settings(max_examples=3, deadline=None)
def test_forks_and_truncation_change_nothing(isa, precision, kv_precision, shared, grown, keep):
    made = engines(isa, precision, kv_precision)
    alone, engine = made[1], made[2]
    prompt = [i % 70 for i in range(shared)]
    sequence = engine.new_sequence()
    engine.forward([sequence], [prompt], "none")
    fork = engine.fork_sequence(sequence)
    engine.forward([sequence], [[1] * 20], "none")
    logits = engine.forward([fork], [grown], "all")
    np.testing.assert_array_equal(logits, one_by_one(alone, prompt + grown)[shared:])
    keep = min(keep, shared + len(grown))
    engine.truncate_sequence(fork, keep)
    engine.free_sequence(sequence)
    logits = engine.forward([fork], [[7, 8, 9]], "all")
    expected = one_by_one(alone, [*(prompt + grown)[:keep], 7, 8, 9])
    np.testing.assert_array_equal(logits, expected[keep:])
    engine.free_sequence(fork)


@EVERY
def test_a_copy_of_keys_and_values_continues_like_the_original(isa, precision, kv_precision):
    engine = engines(isa, precision, kv_precision)[2]
    sequence = engine.new_sequence()
    engine.forward([sequence], [list(range(45))], "none")
    values = engine.read_sequence(sequence)
    copy = engine.write_sequence(values)
    np.testing.assert_array_equal(engine.read_sequence(copy), values)
    one, other = engine.forward([sequence, copy], [[7], [7]])
    np.testing.assert_array_equal(one, other)
    for each in (sequence, copy):
        engine.free_sequence(each)


@EVERY_PRODUCT
def test_wide_products_do_not_depend_on_the_number_of_rows(precision, isa):
    config = ModelConfig(n_vocab=50, n_ctx=40, n_embd=800, n_head=10, n_layer=1)
    one, two = (make(random_checkpoint(config), isa, precision, threads=threads) for threads in (1, 2))
    tokens = list(range(40))
    np.testing.assert_array_equal(run(two, [tokens])[0], one_by_one(one, tokens))


@EVERY_PRODUCT
def test_more_rows_than_one_pass_holds(precision, isa):
    config = ModelConfig(n_vocab=40, n_ctx=1300, n_embd=40, n_head=2, n_layer=1)
    engine = make(random_checkpoint(config), isa, precision, threads=2)
    tokens = [i % 40 for i in range(1300)]
    (whole,) = run(engine, [tokens])
    sequence = engine.new_sequence()
    parts = [engine.forward([sequence], [tokens[i : i + 130]], "all") for i in range(0, 1300, 130)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
