from __future__ import annotations

import numpy as np
import pytest

from gpt2lab import LanguageModel, Tokenizer
from gpt2lab.errors import UsageError
from gpt2lab.exploring.compare import check_same_vocabulary, compare, divergence
from gpt2lab.sampling import SamplingParams
from gpt2lab.sampling.rules import log_softmax


def test_a_model_does_not_differ_from_itself(tiny):
    result = compare(tiny, tiny, "Hello", SamplingParams(), names=("a", "b"), length=6, seed=1)
    assert [written.text for written in result.written] == [result.written[0].text] * 2
    assert result.kl == 0 and not result.up and not result.down


def test_places_tell_both_models_probabilities_and_their_divergence(tiny, coarse):
    result = compare(tiny, coarse, "Hello", SamplingParams(), names=("a", "b"), length=4, seed=1)
    written = result.written[0]
    context = tiny.tokenizer.encode("Hello")
    for place in written.places:
        log_a, log_b = (log_softmax(model.logits(context)[-1:])[0] for model in (tiny, coarse))
        assert place.a == pytest.approx(float(np.exp(log_a[place.id])), rel=1e-3)
        assert place.b == pytest.approx(float(np.exp(log_b[place.id])), rel=1e-3)
        assert place.kl == pytest.approx(float((np.exp(log_a) * (log_a - log_b)).sum()), rel=1e-2)
        context.append(place.id)
    assert all(moved.b > moved.a for moved in result.up) and all(moved.b < moved.a for moved in result.down)
    assert "--model_name b" in result.written[-1].command


@pytest.fixture(scope="session")
def coarse(tiny) -> LanguageModel:
    """Provide the same model with 4-bit weights."""
    from gpt2lab import load

    return load(tiny._engines.checkpoint.path, precision="int4")


def test_divergence_is_zero_between_equals_and_counts_no_impossible_token():
    assert divergence(np.log([0.5, 0.5]), np.log([0.5, 0.5])) == 0
    with np.errstate(divide="ignore"):
        assert divergence(np.log([1.0, 0.0]), np.log([0.5, 0.5])) == pytest.approx(np.log(2))


def test_vocabularies_must_be_the_same(tiny):
    class Other:
        tokenizer = Tokenizer.from_files({**Tokenizer.gpt2().encoder(), "extra": 50257}, Tokenizer.gpt2().merges())

    class Without:
        tokenizer = None

    with pytest.raises(UsageError, match="a and b have different vocabularies"):
        check_same_vocabulary(tiny, Other, ("a", "b"))
    with pytest.raises(UsageError, match="b has no tokenizer"):
        check_same_vocabulary(tiny, Without, ("a", "b"))
