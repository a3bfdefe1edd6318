"""Scores of endings, compared with transformers one ending at a time."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2lab.errors import ContextError
from gpt2lab.evaluating import batches
from gpt2lab.evaluating.batches import Item, score_items


def random_items(seed, n, n_ctx=64, n_vocab=50257):
    random = np.random.default_rng(seed)

    def ids(length):
        return random.integers(0, n_vocab, length).tolist()

    lengths = [(int(random.integers(1, 40)), random.integers(1, 20, random.integers(1, 5))) for _ in range(n)]
    return [Item(ids(context), [ids(int(length)) for length in endings]) for context, endings in lengths]


def expected(hf_logprobs, context, ending):
    rows = hf_logprobs([*context, *ending[:-1]])[-len(ending) :]
    return rows[np.arange(len(ending)), ending], rows.argmax(-1) == np.array(ending)


def test_scores_are_those_of_transformers(run, hf_logprobs):
    items = random_items(1, 30)
    for item, scores in zip(items, score_items(run.engine, items), strict=True):
        for ending, found in zip(item.endings, scores, strict=True):
            logprobs, greedy = expected(hf_logprobs, item.context, ending)
            np.testing.assert_allclose(found.logprobs, logprobs, atol=1e-4)
            np.testing.assert_array_equal(found.greedy, greedy)


def test_what_runs_together_changes_nothing(run, monkeypatch):
    items = random_items(2, 12)
    together = list(score_items(run.engine, items))
    monkeypatch.setattr(batches, "BATCH_TOKENS", 1)
    monkeypatch.setattr(batches, "LOGIT_ROWS", 3)
    for left, right in zip(together, score_items(run.engine, items), strict=True):
        for one, other in zip(left, right, strict=True):
            np.testing.assert_array_equal(one.logprobs, other.logprobs)


def test_a_likely_token_is_greedy_and_allowed_unless_banned(run, hf_logprobs):
    context = [464, 3290]
    first = int(hf_logprobs(context)[-1].argmax())
    second = int(hf_logprobs([*context, first])[-1].argmax())
    ((scores,),) = score_items(run.engine, [Item(context, [[first, second]])], banned=[0])
    assert scores.greedy.tolist() == [True, True] and scores.allowed
    ((scores,),) = score_items(run.engine, [Item(context, [[first]])], banned=[first])
    assert scores.greedy.tolist() == [True] and not scores.allowed


def test_with_the_likeliest_banned_the_next_is_allowed(run, hf_logprobs):
    context = [464, 3290]
    first, second = hf_logprobs(context)[-1].argsort()[::-1][:2].tolist()
    ((scores,),) = score_items(run.engine, [Item(context, [[second]])], banned=[first])
    assert scores.allowed and scores.greedy.tolist() == [False]


def test_the_beginning_of_a_context_is_dropped_where_it_does_not_fit(run):
    long, ending = list(range(100)), list(range(200, 210))
    ((cut,),) = score_items(run.engine, [Item(long, [ending])])
    ((fitting,),) = score_items(run.engine, [Item(long[-55:], [ending])])  # 55 + 10 - 1 = n_ctx
    np.testing.assert_array_equal(cut.logprobs, fitting.logprobs)


def test_an_ending_longer_than_the_context_is_refused(run):
    with pytest.raises(ContextError, match="an ending has 65 tokens, more than the model's context of 64"):
        list(score_items(run.engine, [Item([1], [list(range(65))])]))


def test_an_ending_may_fill_the_context(run):
    ((scores,),) = score_items(run.engine, [Item([1, 2], [list(range(64))])])
    assert scores.logprobs.shape == (64,)


def test_items_are_read_as_they_are_needed(run, monkeypatch):
    monkeypatch.setattr(batches, "BATCH_TOKENS", 10)
    read = []

    def items():
        for n in range(100):
            read.append(n)
            yield Item([n], [[1, 2, 3, 4, 5]])

    scores = score_items(run.engine, items())
    next(scores)
    assert len(read) < 5
    scores.close()
