"""A step of the native engine: the same as a forward pass and draws one by one, or nothing at all."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_native import SHAPE, random_checkpoint

from gpt2lab.engines.native import NativeEngine
from gpt2lab.engines.protocol import Draw, Drawn
from gpt2lab.errors import ContextError, SamplingError, UsageError
from gpt2lab.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0)


@pytest.fixture(scope="module")
def engines():
    checkpoint = random_checkpoint(SHAPE)
    return {threads: NativeEngine(checkpoint, threads=threads) for threads in (1, 2, 3)}


@pytest.fixture
def engine(engines):
    return engines[2]


def composed(engine: NativeEngine, tokens, draw: Draw | None) -> list[Drawn]:
    """Compute the result of a step for one sequence with the engine's other methods."""
    sequence = engine.new_sequence()
    logits = engine.forward([sequence], [tokens], "all")
    engine.free_sequence(sequence)
    drawn: list[Drawn] = []
    for i in range(len(tokens) - draw.count, len(tokens)) if draw else ():
        history = [[*draw.history, *(d.token for d in drawn)]]
        position = draw.position + len(drawn)
        ids, logprobs = engine.sample(logits[i : i + 1], [draw.params], [draw.seed], [draw.stream], [position], history)
        drawn.append(Drawn(int(ids[0]), float(logprobs[0])))
        if tokens[i + 1 : i + 2] != [drawn[-1].token]:
            break
    return drawn


def step(engine: NativeEngine, tokens, draws):
    """Run a step on new sequences."""
    sequences = [engine.new_sequence() for _ in tokens]
    try:
        return engine.step(sequences, tokens, draws)
    finally:
        for sequence in sequences:
            engine.free_sequence(sequence)


def guessed(engine: NativeEngine, prompt: list[int], draw: Draw, n: int) -> list[int]:
    """Return the n tokens that would be drawn after ``prompt``."""
    tokens = list(prompt)
    for i in range(n):
        one = Draw(draw.params, draw.seed, draw.stream, draw.position + i, [*draw.history, *tokens[len(prompt) :]])
        tokens.append(composed(engine, tokens, one)[0].token)
    return tokens[len(prompt) :]


params_of = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0, 0.01, 1.0]),
    top_k=st.sampled_from([0, 3]),
    repetition_penalty=st.sampled_from([1.0, 1.4]),
    frequency_penalty=st.sampled_from([0, 0.5]),
    logit_bias=st.sampled_from([{}, {3: 2.0, 5: -np.inf}]),
)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_step_equals_a_forward_pass_and_draws_one_by_one(engines, data):
    engine = engines[data.draw(st.sampled_from([1, 2, 3]))]
    tokens, draws = [], []
    for stream in range(data.draw(st.integers(1, 5))):
        ids = data.draw(st.lists(st.integers(0, SHAPE.n_vocab - 1), min_size=1, max_size=6))
        draw = Draw(data.draw(params_of), 9, stream, 17, data.draw(st.lists(st.integers(0, 76), max_size=4)))
        wrong = data.draw(st.lists(st.integers(0, 76), max_size=2))
        guesses = [*guessed(engines[1], ids, draw, data.draw(st.integers(0, 3))), *wrong]
        draw.count = len(guesses) + data.draw(st.integers(0, 1))  # sometimes 0: then nothing is drawn
        tokens.append([*ids, *guesses])
        draws.append(draw if draw.count else None)
    expected = [composed(engines[1], ids, draw) for ids, draw in zip(tokens, draws, strict=True)]
    assert step(engine, tokens, draws) == expected


@pytest.mark.parametrize("threads", [1, 3])
def test_right_guesses_are_drawn_in_one_step(engines, threads):
    draw = Draw(SamplingParams(temperature=0.9), 3, 1, 5)
    guesses = guessed(engines[1], [4, 5], draw, 12)
    draw.count = 12
    drawn = step(engines[threads], [[4, 5, *guesses[:-1]]], [draw])
    assert [d.token for d in drawn[0]] == guesses


def test_more_draws_than_one_pass_holds(engines):
    draws = [Draw(GREEDY, 0, 0, 1, count=n) for n in (100, 149, 1, 60)]
    guesses = [guessed(engines[1], [7], draw, draw.count) for draw in draws]
    drawn = step(engines[2], [[1] * 130, *([7, *ids[:-1]] for ids in guesses)], [None, *draws])
    assert drawn[0] == []
    assert [[d.token for d in row] for row in drawn[1:]] == guesses


def test_the_sequence_holds_all_that_was_fed(engine):
    sequence = engine.new_sequence()
    engine.step([sequence], [[1, 2, 3, 4]], [Draw(GREEDY, 0, 0, 4, count=3)])
    assert engine._core.sequence_length(sequence) == 4
    engine.truncate_sequence(sequence, 2)
    after = engine.step([sequence], [[9]], [Draw(GREEDY, 0, 0, 3)])
    engine.free_sequence(sequence)
    assert after == [composed(engine, [1, 2, 9], Draw(GREEDY, 0, 0, 3))]


@pytest.mark.parametrize("rows", [1, 140])
def test_a_draw_that_fails_takes_back_what_was_fed(engine, rows):
    nothing_left = SamplingParams(logit_bias=dict.fromkeys(range(SHAPE.n_vocab), -np.inf))
    sequences = [engine.new_sequence() for _ in range(3)]
    engine.step(sequences[:1], [[1, 2, 3]], [None])
    good, bad = Draw(GREEDY, 0, 0, 5, count=rows), Draw(nothing_left, 0, 0, 5, count=1)
    before = engine.kv_cache_bytes
    with pytest.raises(SamplingError, match="-inf in row 2"):
        engine.step(sequences, [[4] * rows, [5], [6] * 9], [good, None, bad])
    assert [engine._core.sequence_length(s) for s in sequences] == [3, 0, 0]
    assert engine.kv_cache_bytes == before
    again = engine.step(sequences[:1], [[4]], [Draw(GREEDY, 0, 0, 5)])
    assert again == [composed(engine, [1, 2, 3, 4], Draw(GREEDY, 0, 0, 5))]
    for sequence in sequences:
        engine.free_sequence(sequence)


def test_logits_that_are_no_numbers_are_refused():
    checkpoint = random_checkpoint(SHAPE)
    checkpoint.tensors["wpe.weight"][2] = 1e38
    engine = NativeEngine(checkpoint)
    with pytest.raises(SamplingError, match="NaN in row 1"):
        step(engine, [[1], [1, 2, 3]], [None, Draw(GREEDY, 0, 0, 0)])


def test_a_sequence_cannot_grow_over_the_context(engine):
    sequences = [engine.new_sequence() for _ in range(2)]
    with pytest.raises(ContextError, match="150"):
        engine.step(sequences, [[1], [0] * 151], [None, None])
    assert [engine._core.sequence_length(s) for s in sequences] == [0, 0]
    for sequence in sequences:
        engine.free_sequence(sequence)


@pytest.mark.parametrize("tokens", [[77], [-1], [2**31], [1.5], ["a"], [None]])
def test_tokens_that_the_model_lacks_are_refused(engine, tokens):
    with pytest.raises(UsageError):
        step(engine, [tokens], [None])


def test_an_unknown_sequence_is_refused(engine):
    with pytest.raises(UsageError, match="12345"):
        engine.step([12345], [[0]], [None])


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1},
        {"seed": 2**64},
        {"stream": 0.5},
        {"position": 2**32},
        {"position": 2**32 - 1, "count": 2},
        {"history": [77], "params": SamplingParams(presence_penalty=1)},
        {"count": 3},
        {"count": -1},
        {"top": -1},
        {"params": SamplingParams(logit_bias={77: 1.0})},
        {"params": SamplingParams(logit_bias={2**40: 1.0})},
    ],
)
def test_draws_out_of_range_are_refused(engine, wrong):
    draw = {"params": SamplingParams(), "seed": 0, "stream": 0, "position": 0, **wrong}
    with pytest.raises(SamplingError):
        step(engine, [[0, 1]], [Draw(**draw)])


ARGUMENTS = {
    "counts": [2],
    "draw_counts": [1],
    "params": np.array([1.0, 0, 1, 0, 1, 0, 0]),
    "streams": [0, 0, 0],
    "history": [1],
    "history_offsets": [0, 1],
    "bias_ids": np.array([1], np.int32),
    "bias_values": np.array([1.0]),
    "bias_offsets": np.array([0, 1]),
    "top": [0],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("counts", []),
        ("counts", [-1]),
        ("counts", [3]),
        ("counts", [1]),
        ("counts", [2**31 - 1]),
        ("draw_counts", []),
        ("draw_counts", [3]),
        ("params", np.ones(14)),
        ("params", np.ones(6)),
        ("params", np.full(7, np.nan)),
        ("streams", [0, 0]),
        ("history", [77]),
        ("history_offsets", []),
        ("history_offsets", [0]),
        ("history_offsets", [0, 2]),
        ("history_offsets", [1, 1]),
        ("bias_ids", np.array([-1], np.int32)),
        ("bias_ids", np.array([], np.int32)),
        ("bias_values", np.array([np.nan])),
        ("bias_values", np.array([np.inf])),
        ("bias_values", np.array([])),
        ("bias_offsets", np.array([0, -1])),
        ("top", []),
        ("top", [78]),
    ],
)
def test_the_core_refuses_impossible_arguments(engine, name, value):
    sequence = engine.new_sequence()
    engine._core.step([sequence], [0, 1], *ARGUMENTS.values())
    engine.truncate_sequence(sequence, 0)
    with pytest.raises(ValueError):
        engine._core.step([sequence], [0, 1], *(ARGUMENTS | {name: value}).values())
    assert engine._core.sequence_length(sequence) == 0
    engine.free_sequence(sequence)


def test_a_sequence_cannot_be_fed_twice_in_a_step(engine):
    sequence = engine.new_sequence()
    with pytest.raises(ValueError, match="twice"):
        engine.step([sequence, sequence], [[0], [1]], [None, None])
    engine.free_sequence(sequence)


def test_nothing_to_do_is_done(engine):
    assert engine.step([], [], []) == []


def test_changed_biases_are_seen(engine):
    bias = {3: 1e9}
    draw = Draw(SamplingParams(logit_bias=bias), 0, 0, 0)
    assert step(engine, [[0]], [draw])[0][0].token == 3
    del bias[3]
    bias[4] = 1e9
    assert step(engine, [[0]], [draw])[0][0].token == 4


def test_several_python_threads_can_step_at_once(engines):
    engine = engines[3]
    draws = [Draw(SamplingParams(top_p=0.9), 1, stream, 3) for stream in range(4)]
    expected = step(engine, [[1, 2, 3]] * 4, draws)
    results = []

    def work():
        for _ in range(20):
            results.append(step(engine, [[1, 2, 3]] * 4, draws) == expected)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [True] * 80
