"""The engine protocol, test by test, for every engine: native, NumPy, PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from precision_cases import random_checkpoint

import needs
from gpt2lab import reference
from gpt2lab.config import ModelConfig
from gpt2lab.engines import open_engine
from gpt2lab.engines.protocol import Draw, Engine
from gpt2lab.errors import ContextError, SamplingError
from gpt2lab.sampling import SamplingParams, rules
from gpt2lab.weights import open_checkpoint
from gpt2lab.weights.checkpoint import Checkpoint

GOLDEN = Path(__file__).parents[1] / "golden"
ISOLATING = ["cpu", pytest.param("torch-cpu", marks=needs.mark("torch"))]
"""Devices on which NaN stays with its token; NumPy's plain products spread it through a text."""
DEVICES = ["reference", *ISOLATING]
GREEDY = SamplingParams(temperature=0)
SHAPE = ModelConfig(n_vocab=77, n_ctx=150, n_embd=48, n_head=3, n_layer=2)
TOKENS = [(7 * i * i + 3 * i) % 77 for i in range(150)]
SWITCHES = {
    "gelu": {"activation": "gelu"},
    "relu": {"activation": "relu"},
    "silu": {"activation": "silu"},
    "wide": {"n_inner": 200},
    "epsilon": {"layer_norm_epsilon": 0.03},
    "unscaled": {"scale_attn_weights": False},
    "scaled by layer": {"scale_attn_by_inverse_layer_idx": True},
    "untied": {"tie_word_embeddings": False},
    "all": {"activation": "gelu", "n_inner": 70, "scale_attn_by_inverse_layer_idx": True, "tie_word_embeddings": False},
}


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def engine(device: str) -> Engine:
    return open_engine(random_checkpoint(SHAPE), device=device)


def numbers_of(name: str) -> tuple[Checkpoint, dict[str, np.ndarray]]:
    return open_checkpoint(GOLDEN / name), np.load(GOLDEN / name / "golden.npz")


def logits_of(engine: Engine, tokens: list[int], *cuts: int) -> np.ndarray:
    """Return the logits after each of ``tokens``, fed in parts that end at ``cuts``."""
    sequence = engine.new_sequence()
    parts = np.split(np.array(tokens), cuts)
    logits = np.concatenate([engine.forward([sequence], [part.tolist()], "all") for part in parts])
    engine.free_sequence(sequence)
    return logits


def drawn_after(engine: Engine, tokens: list[int], n: int, params: SamplingParams, seed: int = 3) -> list[int]:
    """Return the ``n`` tokens that are drawn one by one after ``tokens``."""
    sequence, fed, text = engine.new_sequence(), tokens, list(tokens)
    for _ in range(n):
        [[drawn]] = engine.step([sequence], [fed], [Draw(params, seed, 0, len(text), text)])
        fed = [drawn.token]
        text += fed
    engine.free_sequence(sequence)
    return text[len(tokens) :]


@pytest.mark.parametrize("name", ["tiny", "odd"])
def test_logits_equal_the_original_codes(device, name):
    checkpoint, numbers = numbers_of(name)
    engine = open_engine(checkpoint, device=device)
    logits = np.stack([logits_of(engine, row.tolist()) for row in numbers["full_tokens"]])
    if "full_logits" in numbers:
        np.testing.assert_allclose(logits, numbers["full_logits"], atol=1e-4, rtol=0)
    else:
        np.testing.assert_allclose(logits[:, -1], numbers["full_logits_last"], atol=1e-4, rtol=0)
        np.testing.assert_allclose(logits[..., :64], numbers["full_logits_slice"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["tiny", "odd"])
def test_greedy_tokens_equal_the_original_codes_to_the_end_of_the_context(device, name):
    checkpoint, numbers = numbers_of(name)
    prompt, expected = numbers["greedy_prompt"][0].tolist(), numbers["greedy_tokens"][0].tolist()
    engine = open_engine(checkpoint, device=device)
    assert prompt + drawn_after(engine, prompt, len(expected) - len(prompt), GREEDY) == expected


@pytest.mark.parametrize("switch", SWITCHES)
def test_the_familys_switches_are_obeyed(device, switch):
    config = ModelConfig(n_vocab=77, n_ctx=20, n_embd=48, n_head=3, n_layer=3, **SWITCHES[switch])
    checkpoint = random_checkpoint(config)
    expected, _ = reference.forward(dict(checkpoint.tensors), config, TOKENS[:20])
    np.testing.assert_allclose(logits_of(open_engine(checkpoint, device=device), TOKENS[:20]), expected, atol=1e-4)


@pytest.mark.parametrize("cuts", [(1,), (37,), (40, 41, 149)])
def test_logits_do_not_depend_on_how_a_text_is_fed(device, engine, cuts):
    whole, parts = logits_of(engine, TOKENS), logits_of(engine, TOKENS, *cuts)
    np.testing.assert_allclose(parts, whole, atol=1e-5 if device == "reference" else 0, rtol=0)


def test_logits_do_not_depend_on_neighbours(engine):
    alone = [logits_of(engine, TOKENS[n:])[-1] for n in range(0, 150, 7)]
    sequences = [engine.new_sequence() for _ in alone]
    together = engine.forward(sequences, [TOKENS[n:] for n in range(0, 150, 7)])
    np.testing.assert_array_equal(together, alone)
    for sequence in sequences:
        engine.free_sequence(sequence)


def test_outputs_are_the_wanted_rows(engine):
    prompts = [TOKENS[:20], TOKENS[:3]]
    every = engine.forward([engine.new_sequence(), engine.new_sequence()], prompts, "all")
    last = engine.forward([engine.new_sequence(), engine.new_sequence()], prompts, "last")
    none = engine.forward([engine.new_sequence(), engine.new_sequence()], prompts, "none")
    assert (every.shape, last.shape, none.shape) == ((23, 77), (2, 77), (0, 77))
    assert every.dtype == last.dtype == none.dtype == np.float32
    np.testing.assert_array_equal(last, every[[19, 22]])


@pytest.mark.parametrize("shared", [1, 32, 40, 64])
def test_a_fork_goes_its_own_way(engine, shared):
    sequence = engine.new_sequence()
    engine.forward([sequence], [TOKENS[:shared]], "none")
    fork = engine.fork_sequence(sequence)
    both = engine.forward([sequence, fork], [[5, 7], [6, 7]])
    np.testing.assert_array_equal(both[0], logits_of(engine, [*TOKENS[:shared], 5, 7], shared)[-1])
    np.testing.assert_array_equal(both[1], logits_of(engine, [*TOKENS[:shared], 6, 7], shared)[-1])
    engine.free_sequence(sequence)
    again = engine.forward([fork], [[8]])[0]
    np.testing.assert_array_equal(again, logits_of(engine, [*TOKENS[:shared], 6, 7, 8], shared, shared + 2)[-1])


def test_a_forks_origin_is_not_changed_by_a_truncated_fork(engine):
    sequence = engine.new_sequence()
    engine.forward([sequence], [TOKENS[:50]], "none")
    fork = engine.fork_sequence(sequence)
    engine.truncate_sequence(fork, 10)
    engine.forward([fork], [TOKENS[60:80]], "none")
    after = engine.forward([sequence], [[9]])[0]
    np.testing.assert_array_equal(after, logits_of(engine, [*TOKENS[:50], 9], 50)[-1])


def test_a_truncated_sequence_goes_on_from_what_is_left(engine):
    sequence = engine.new_sequence()
    engine.forward([sequence], [TOKENS[:100]], "none")
    engine.truncate_sequence(sequence, 40)
    np.testing.assert_allclose(
        engine.forward([sequence], [TOKENS[40:50]])[0], logits_of(engine, TOKENS[:50], 40)[-1], atol=1e-5
    )


def test_keys_and_values_can_be_read_and_written(engine):
    sequence = engine.new_sequence()
    engine.forward([sequence], [TOKENS[:45]], "none")
    values = engine.read_sequence(sequence)
    assert values.shape == (2, 2, 3, 45, 16)
    _, expected = reference.forward(dict(random_checkpoint(SHAPE).tensors), SHAPE, TOKENS[:45])
    np.testing.assert_allclose(values, expected, atol=1e-4)
    copy = engine.write_sequence(values)
    np.testing.assert_array_equal(engine.read_sequence(copy), values)
    one, other = engine.forward([sequence, copy], [[1], [1]])
    np.testing.assert_array_equal(one, other)


def test_memory_that_is_released_is_there_again(engine):
    sequence = engine.new_sequence()
    engine.forward([sequence], [TOKENS[:45]], "none")
    others = [engine.new_sequence() for _ in range(30)]
    engine.forward(others, [TOKENS] * 30, "none")
    for other in others:
        engine.free_sequence(other)
    engine.release_memory()
    np.testing.assert_array_equal(engine.forward([sequence], [[1]])[0], logits_of(engine, [*TOKENS[:45], 1], 45)[-1])
    np.testing.assert_array_equal(logits_of(engine, TOKENS)[-1], logits_of(engine, TOKENS)[-1])


PARAMS = {
    "plain": SamplingParams(),
    "greedy": GREEDY,
    "warm": SamplingParams(temperature=1.5),
    "top-k": SamplingParams(top_k=5),
    "top-p": SamplingParams(top_p=0.8),
    "min-p": SamplingParams(min_p=0.05),
    "bias": SamplingParams(logit_bias={3: 2.5, 9: -np.inf}),
    "penalties": SamplingParams(repetition_penalty=1.4, presence_penalty=0.3, frequency_penalty=0.2),
    "all": SamplingParams(temperature=0.7, top_k=40, top_p=0.9, min_p=0.01, frequency_penalty=0.5, logit_bias={1: 1.0}),
}


def test_a_step_draws_by_the_rules_whatever_its_neighbours_draw(engine):
    sequences = [engine.new_sequence() for _ in PARAMS]
    texts = [TOKENS[n : n + 30 + n] for n in range(len(PARAMS))]
    draws = [Draw(params, 5, n, 30 + n, texts[n], top=n) for n, params in enumerate(PARAMS.values())]
    drawn = engine.step(sequences, texts, draws)
    for text, draw, [found] in zip(texts, draws, drawn, strict=True):
        logits = logits_of(engine, text)[-1]
        place = {"seed": draw.seed, "stream": draw.stream, "position": draw.position}
        assert found.token == rules.sample(logits, draw.params, **place, history=text)
        assert found.logprob == pytest.approx(rules.logprob(logits, found.token), abs=1e-6)
        assert [id for id, _ in found.top] == rules.largest(logits, draw.top).tolist()
        assert [p for _, p in found.top] == pytest.approx([rules.logprob(logits, id) for id, _ in found.top], abs=1e-6)


@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
def test_right_guesses_are_drawn_in_one_step(engine, params):
    expected = drawn_after(engine, TOKENS[:20], 6, params)
    draw = Draw(params, 3, 0, 20, TOKENS[:20], count=6)
    [drawn] = engine.step([engine.new_sequence()], [[*TOKENS[:20], *expected[:5]]], [draw])
    assert [each.token for each in drawn] == expected


def test_a_wrong_guess_ends_the_draws(engine):
    expected = drawn_after(engine, TOKENS[:20], 4, SamplingParams())
    sequence = engine.new_sequence()
    guesses = [expected[0], (expected[1] + 1) % 77, 5]
    draw = Draw(SamplingParams(), 3, 0, 20, count=4)
    [drawn] = engine.step([sequence], [[*TOKENS[:20], *guesses]], [draw])
    assert [each.token for each in drawn] == expected[:2]
    engine.truncate_sequence(sequence, 21)
    [[third]] = engine.step([sequence], [[expected[1]]], [Draw(SamplingParams(), 3, 0, 22)])
    assert third.token == expected[2]


def test_a_step_may_draw_nothing(engine):
    sequence = engine.new_sequence()
    assert engine.step([sequence], [TOKENS[:5]], [None]) == [[]]
    assert engine.read_sequence(sequence).shape[3] == 5
    assert engine.step([], [], []) == []


def test_a_call_that_fails_leaves_every_sequence_as_it_was(engine):
    sequences = [engine.new_sequence(), engine.new_sequence()]
    engine.forward(sequences, [TOKENS[:33], TOKENS[:3]], "none")
    before = [engine.read_sequence(sequence) for sequence in sequences]
    nothing_left = Draw(SamplingParams(logit_bias=dict.fromkeys(range(77), -np.inf)), 0, 0, 0)
    with pytest.raises(ContextError, match="150"):
        engine.forward(sequences, [[4], [4] * 148])
    with pytest.raises(ContextError, match="150"):
        engine.step(sequences, [[4], [4] * 148], [None, None])
    with pytest.raises(SamplingError, match="-inf"):
        engine.step(sequences, [[4], [4] * 40], [Draw(GREEDY, 0, 0, 0), nothing_left])
    with pytest.raises(ValueError, match="token id"):
        engine.forward(sequences, [[4], [77]])
    for sequence, values in zip(sequences, before, strict=True):
        np.testing.assert_array_equal(engine.read_sequence(sequence), values)
    np.testing.assert_array_equal(
        engine.forward(sequences, [[5], [5]])[0], logits_of(engine, [*TOKENS[:33], 5], 33)[-1]
    )


def test_logits_that_are_no_numbers_are_refused_and_forgotten(device):
    checkpoint = random_checkpoint(SHAPE)
    checkpoint.tensors["wpe.weight"][2] = 1e38
    engine = open_engine(checkpoint, device=device)
    sequence = engine.new_sequence()
    with np.errstate(all="ignore"), pytest.raises(SamplingError):
        engine.step([sequence], [[1, 2, 3]], [Draw(GREEDY, 0, 0, 3)])
    expected = logits_of(engine, [1, 2])[-1]
    np.testing.assert_array_equal(engine.forward([sequence], [[1, 2]])[0], expected)
    assert np.isfinite(expected).all()


@pytest.mark.parametrize("device", ISOLATING, indirect=True)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_position_without_numbers_reaches_no_earlier_token_and_no_other_text(device, engine, bad):
    clean = logits_of(engine, TOKENS[:60])
    checkpoint = random_checkpoint(SHAPE)
    checkpoint.tensors["wpe.weight"][40, 5] = bad
    broken = open_engine(checkpoint, device=device)
    for _ in range(2):  # the second time in memory with the first time's contents
        sequences = [broken.new_sequence(), broken.new_sequence()]
        with np.errstate(all="ignore"):
            rows = broken.forward(sequences, [TOKENS[:60], TOKENS[:20]], "all")
        np.testing.assert_array_equal(rows[:40], clean[:40])
        assert np.isnan(rows[40:60]).all()
        np.testing.assert_array_equal(rows[60:], clean[:20])
        broken.truncate_sequence(sequences[0], 30)
        np.testing.assert_array_equal(broken.forward(sequences[:1], [TOKENS[30:35]], "all"), clean[30:35])
        for sequence in sequences:
            broken.free_sequence(sequence)


def test_a_token_without_numbers_reaches_no_text_that_lacks_it(device):
    checkpoint = random_checkpoint(ModelConfig(**{**vars(SHAPE), "tie_word_embeddings": False}))
    text = [token or 1 for token in TOKENS[:40]]
    clean = logits_of(open_engine(checkpoint, device=device), text)
    checkpoint.tensors["wte.weight"][0] = np.nan  # the token with which PyTorch's engine pads its passes
    np.testing.assert_array_equal(logits_of(open_engine(checkpoint, device=device), text), clean)
