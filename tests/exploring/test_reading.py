"""Readings against the model's own scores and distributions."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2lab.exploring.reading import entropy, last_logits, likeliest, read_sample, read_text
from gpt2lab.exploring.score import read_document
from gpt2lab.sampling.declaration import SamplingParams
from gpt2lab.sampling.rules import distribution

LONG = "The king and the queen lived in a castle. " * 12


def test_a_text_is_read_with_the_log_probabilities_of_score(tiny):
    score = tiny.score(LONG)
    readings = read_text(tiny, LONG)
    assert [reading.id for reading in readings] == score.tokens
    np.testing.assert_allclose([reading.logprob for reading in readings], score.logprobs, atol=1e-5)
    assert "".join(reading.text for reading in readings) == LONG


def test_each_token_tells_its_context_and_edges_are_where_it_shrinks(tiny):
    document = read_document(tiny, LONG, "tiny", stride=24)
    contexts = [reading.context for reading in document.readings]
    assert contexts[:65] == [*range(1, 65), 64 + 1 - 24]
    assert document.edges[0] == 64
    assert all(contexts[n] == 41 for n in document.edges)
    assert "falls back to 41" in document.windows
    assert read_document(tiny, "Hello", "tiny").edges == []
    assert read_document(tiny, "", "tiny").loss is None


def test_a_sample_is_read_with_what_it_was_drawn_from(tiny):
    params = SamplingParams(temperature=2, top_k=5, repetition_penalty=1.5)
    prompt, completion = "Hello there", [11, 262, 11]
    readings = read_sample(tiny, prompt, completion, params)
    assert [reading.id for reading in readings] == completion
    ids = tiny.tokenizer.encode(prompt)
    for i, reading in enumerate(readings):
        history = [*ids, *completion[:i]]
        expected = distribution(tiny.logits(history)[-1], params, history)
        assert reading.drawn_probability == pytest.approx(expected[completion[i]], abs=1e-6)
        assert reading.context == len(history)


def test_the_token_that_starts_a_text_is_no_history(tiny):
    params = SamplingParams(presence_penalty=50)
    (reading,) = read_sample(tiny, "", [50256], params)
    assert reading.drawn_probability == pytest.approx(float(np.exp(reading.logprob)), rel=1e-6)


def test_rank_alternatives_and_entropy_agree_with_the_logits(tiny):
    (reading,) = read_sample(tiny, "Hello", [11], SamplingParams())
    logits = last_logits(tiny, "Hello").astype(np.float64)
    order = np.argsort(-logits, kind="stable")
    assert [alternative.id for alternative in reading.alternatives] == order[:5].tolist()
    assert reading.rank == 1 + order.tolist().index(11)
    p = distribution(logits, SamplingParams())
    assert reading.entropy == pytest.approx(float(-(p * np.log(p)).sum()), abs=1e-5)


def test_entropy_of_certainty_is_zero_and_of_no_knowledge_the_logarithm():
    assert float(entropy(np.array([0.0, 1.0, 0.0]))) == 0.0
    assert float(entropy(np.full(8, 1 / 8))) == pytest.approx(np.log(8))


def test_the_likeliest_are_in_order_with_lower_ids_first_and_none_of_zero():
    found = likeliest(np.array([0.2, 0.0, 0.4, 0.2, 0.2]), 10, None)
    assert [alternative.id for alternative in found] == [2, 0, 3, 4]
    assert [alternative.id for alternative in likeliest(np.array([0.2, 0.0, 0.4, 0.2, 0.2]), 2, None)] == [2, 0]
