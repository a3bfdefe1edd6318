"""Embeddings of texts against the readable forward pass."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2lab.errors import ContextError, UsageError
from gpt2lab.reference import forward, layer_norm

TEXTS = ["The king said to the queen", "A fox", "The king said to the queen that he had seen a fox"]


def hidden(model, text) -> np.ndarray:
    """Return the hidden states [n_seq, n_embd] after the final layer norm."""
    weights, found = dict(model.checkpoint.tensors), {}

    def keep(site, layer, x):
        found[site, layer] = x
        return x

    forward(weights, model.config, model.tokenizer.encode(text), hook=keep)
    return layer_norm(weights, "ln_f", found["resid_pre", model.config.n_layer], model.config.layer_norm_epsilon)


def test_an_embedding_is_the_mean_or_the_last_of_the_hidden_states(tiny):
    for text in TEXTS:
        expected = hidden(tiny, text)
        np.testing.assert_allclose(tiny.embed(text), expected.mean(axis=0), rtol=0, atol=1e-4)
        np.testing.assert_allclose(tiny.embed(text, pooling="last"), expected[-1], rtol=0, atol=1e-4)


def test_several_texts_are_embedded_as_each_alone(each):
    together = each.embed(TEXTS)
    assert together.shape == (3, each.config.n_embd) and together.dtype == np.float32
    for row, text in zip(together, TEXTS, strict=True):
        np.testing.assert_array_equal(row, each.embed(text))


def test_no_texts_have_no_embeddings(tiny):
    assert tiny.embed([]).shape == (0, tiny.config.n_embd)


def test_ids_and_an_empty_text_are_embedded_too(tiny):
    np.testing.assert_array_equal(tiny.embed(tiny.tokenizer.encode(TEXTS[0])), tiny.embed(TEXTS[0]))
    np.testing.assert_array_equal(tiny.embed(""), tiny.embed([tiny.tokenizer.start]))


def test_what_cannot_be_embedded_is_one_line(tiny):
    with pytest.raises(UsageError, match="pooling must be 'mean' or 'last', got 'max'"):
        tiny.embed("a", pooling="max")
    with pytest.raises(ContextError, match="65 tokens, more than the model's context of 64"):
        tiny.embed([1] * 65)
