"""Figures and their standard errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpt2lab.config import RELEASED_SIZES, ModelConfig
from gpt2lab.evaluating import TASKS
from gpt2lab.evaluating.published import PUBLISHED, SIZES, released_size
from gpt2lab.evaluating.results import Losses, accuracy, perplexity


def test_the_error_of_an_accuracy_is_that_of_the_harness():
    figure = accuracy("", [True] * 1678 + [False] * 3475)
    assert (round(figure.value, 4), round(figure.error, 4)) == (0.3256, 0.0065)


def test_one_example_has_no_error():
    assert math.isnan(accuracy("", [True]).error)
    assert math.isnan(perplexity("", [1.0], "perplexity").error)


def test_the_error_of_a_perplexity_is_what_repeating_shows():
    random = np.random.default_rng(1)
    values = [perplexity("", random.normal(3, 1, 400).tolist(), "").value for _ in range(400)]
    assert perplexity("", random.normal(3, 1, 400).tolist(), "").error == pytest.approx(np.std(values), rel=0.2)


def test_the_error_of_a_texts_perplexity_is_what_repeating_shows():
    random = np.random.default_rng(2)

    def figures():
        losses = Losses()
        for tokens in random.integers(1, 100, 200).tolist():
            losses.add(float(random.normal(3, 0.5) * tokens), tokens)
        return losses.figures("", 4 * sum(losses.tokens))

    repeated = [figures() for _ in range(300)]
    for at in range(2):
        assert figures()[at].error == pytest.approx(np.std([each[at].value for each in repeated]), rel=0.25)


def test_a_perplexity_beyond_floats_is_infinite():
    losses = Losses()
    losses.add(1e6, 1)
    assert losses.figures("", 1)[0].value == math.inf


def test_a_released_size_is_known_by_its_shape():
    assert [released_size(config) for config in RELEASED_SIZES.values()] == list(SIZES)
    assert released_size(ModelConfig(n_vocab=50304)) == "124M"
    assert released_size(ModelConfig(n_layer=8)) is None


def test_published_figures_are_of_our_tasks_and_the_released_sizes():
    assert {each.task for each in PUBLISHED} == set(TASKS) - {"perplexity"}
    assert all(set(each.values) <= set(SIZES) for each in PUBLISHED)
