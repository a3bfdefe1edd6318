"""Activation patching: what changes nothing, and what the readable forward pass computes with the same change."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2lab import load
from gpt2lab.errors import UsageError
from gpt2lab.inside.patching import Patch, patch_edits
from gpt2lab.reference import forward

PROMPT = "The king said to the queen that he had"
OTHER = "The fox went over the hill and it was"
EVERY = {"heads": [(layer, head) for layer in range(3) for head in range(4)], "mlps": [0, 1, 2]}


def test_an_identity_patch_changes_no_bit(each):
    same = each.patched(**EVERY, source=PROMPT)
    np.testing.assert_array_equal(same.logits(PROMPT), each.logits(PROMPT))
    options = {"length": 12, "seed": 3, "n": 2, "logprobs": True}
    plain, patched = each.generate(PROMPT, **options), same.generate(PROMPT, **options)
    assert [(c.text, c.logprobs) for c in patched] == [(c.text, c.logprobs) for c in plain]


def test_a_patch_is_exact_in_the_precision_of_each_engine(tiny):
    same = tiny.patched(**EVERY, source=PROMPT)  # text in int8, logits in float32
    np.testing.assert_array_equal(same.logits(PROMPT), tiny.logits(PROMPT))
    assert same.generate(PROMPT, length=8, seed=1).text == tiny.generate(PROMPT, length=8, seed=1).text


def hooked_logits(model, prompt, hook) -> np.ndarray:
    return forward(dict(model.checkpoint.tensors), model.config, model.tokenizer.encode(prompt), hook=hook)[0]


def test_a_head_and_an_mlp_that_are_off_add_nothing(tiny):
    d = tiny.config.head_dim

    def off(site, layer, x):
        x = x.copy()
        if (site, layer) == ("z", 1):
            x[:, 2 * d : 3 * d] = 0
        if (site, layer) == ("mlp_out", 2):
            x[:] = 0
        return x

    found = tiny.patched(heads=[(1, 2)], mlps=[2]).logits(PROMPT)
    np.testing.assert_allclose(found, hooked_logits(tiny, PROMPT, off), rtol=0, atol=1e-4)
    assert np.abs(found - tiny.logits(PROMPT)).max() > 0.01


def test_a_copy_is_the_other_texts_activation_at_the_same_position(tiny):
    other = tiny.trace(OTHER)

    def copied(site, layer, x):
        if (site, layer) != ("mlp_out", 1):
            return x
        x = x.copy()
        x[[2, 4]] = other.mlp_out[1][[2, 4]]
        return x

    found = tiny.patched(mlps=[1], source=OTHER, positions=[2, 4]).logits(PROMPT)
    np.testing.assert_allclose(found, hooked_logits(tiny, PROMPT, copied), rtol=0, atol=1e-4)


def test_the_mean_is_that_over_the_source(tiny):
    mean, d = tiny.trace(OTHER).z[0, :, 3].mean(axis=0), tiny.config.head_dim

    def meant(site, layer, x):
        if (site, layer) != ("z", 0):
            return x
        x = x.copy()
        x[:, 3 * d :] = mean
        return x

    found = tiny.patched(heads=[(0, 3)], source=OTHER, method="mean").logits(PROMPT)
    np.testing.assert_allclose(found, hooked_logits(tiny, PROMPT, meant), rtol=0, atol=1e-4)


def test_a_patch_of_the_text_reaches_the_tokens_that_are_drawn(tiny):
    patched = load(tiny.checkpoint.path, precision="float32").patched(mlps=[0, 1, 2])
    text = patched.generate(PROMPT, length=6, temperature=0)
    ids = [*patched.tokenizer.encode(PROMPT), *text.tokens]
    expected = patched.logits(ids[:-1])[-6:].argmax(axis=-1).tolist()
    assert text.tokens == expected


def test_patches_add_up(tiny):
    both = tiny.patched(heads=[(0, 0)]).patched(mlps=[1]).logits(PROMPT)
    np.testing.assert_array_equal(both, tiny.patched(heads=[(0, 0)], mlps=[1]).logits(PROMPT))


def test_a_patched_model_scores_and_traces_what_it_computes(tiny):
    patched = tiny.patched(mlps=[1])
    assert not patched.trace(PROMPT).mlp_out[1].any()
    assert patched.score(PROMPT).logprobs != tiny.score(PROMPT).logprobs


def test_patching_leaves_the_model_as_it_was(tiny):
    before = tiny.logits(PROMPT)
    tiny.patched(**EVERY).logits(PROMPT)
    np.testing.assert_array_equal(tiny.logits(PROMPT), before)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "nothing to patch"),
        ({"heads": [1]}, r"heads must be pairs \(layer, head\), got \[1\]"),
        ({"heads": [(1, 2, 3)]}, r"heads must be pairs \(layer, head\)"),
        ({"mlps": 5}, "mlps must be a list of numbers, got 5"),
        ({"mlps": [0], "positions": 5}, "positions must be a list of numbers, got 5"),
        ({"mlps": [3]}, "no layer 3: layers are 0 to 2"),
        ({"heads": [(0, 4)]}, "no head 4: each layer has heads 0 to 3"),
        ({"mlps": [0], "positions": []}, "nothing to patch: positions is empty"),
        ({"mlps": [0], "method": "mean"}, "method 'mean' or 'copy' needs source"),
        ({"mlps": [0], "method": "double"}, "method must be"),
        ({"mlps": [0], "source": "The king", "positions": [2]}, "no position 2 to patch: positions are 0 to 1"),
    ],
)
def test_a_patch_that_does_not_fit_is_one_line(tiny, arguments, message):
    with pytest.raises(UsageError, match=message):
        tiny.patched(**arguments)


def test_a_patched_model_can_be_copied(tiny):
    from copy import deepcopy

    from gpt2lab.engines.edited import EditedEngines

    edited = tiny.patched(mlps=[1])._engines
    assert isinstance(edited, EditedEngines) and deepcopy(edited.config) == tiny.config
    with pytest.raises(AttributeError):
        EditedEngines.__new__(EditedEngines).precision  # noqa: B018 (as while a copy is being made)


def test_what_is_named_twice_is_changed_once(tiny):
    patch = Patch(heads=((1, 2),) * 3, mlps=(0, 0), positions=(4, 1, 2, 2, 5))
    edits = patch_edits(tiny.exact_engine, patch)
    assert [(edit.site, edit.first, len(edit.values)) for edit in edits] == [
        (site, *run) for site in ("mlp_out", "z") for run in ((1, 2), (4, 2))
    ]
