"""Attention and the logit lens against the forward pass that they come from."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2lab import load
from gpt2lab.errors import UsageError
from gpt2lab.exploring.attend import attend


def test_attention_looks_at_itself_and_back_and_adds_up_to_one(tiny):
    found = attend(tiny, "The king said to the queen")
    assert found.weights.shape == (3, 4, 6, 6)
    np.testing.assert_allclose(found.weights.sum(axis=-1), 1, atol=1e-5)
    assert not found.weights[..., np.triu(np.ones((6, 6), bool), 1)].any()


def test_the_last_layers_guess_is_the_models(tiny):
    prompt = "The king said to the queen"
    found = attend(tiny, prompt)
    assert len(found.lens) == 4 and all(len(layer) == 6 for layer in found.lens)
    expected = tiny.logits(prompt)
    assert [guesses[0].id for guesses in found.lens[-1]] == expected.argmax(axis=-1).tolist()
    probabilities = np.exp(expected[-1] - expected[-1].max())
    assert found.lens[-1][-1][0].probability == pytest.approx(probabilities.max() / probabilities.sum(), rel=1e-4)


def test_nothing_and_too_much(tiny):
    assert attend(tiny, "").tokens == ["<|endoftext|>"]
    with pytest.raises(UsageError, match="more than the 64"):
        attend(tiny, [1] * 65)


def test_the_last_layers_guess_comes_from_a_head_of_its_own(tmp_path):
    import family

    model = family.save("all", tmp_path)
    found = attend(load(tmp_path), family.tokens(20))
    guesses = [alternatives[0].id for alternatives in found.lens[-1]]
    assert guesses == family.logits(model, family.tokens(20)).argmax(axis=-1).tolist()
