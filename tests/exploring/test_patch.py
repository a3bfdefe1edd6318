"""The map of activation patching against runs of the readable forward pass."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2lab.errors import UsageError
from gpt2lab.exploring.patch import patch_map
from gpt2lab.exploring.patch_page import patch_page
from gpt2lab.reference import forward

CLEAN, CORRUPTED = "The king said to the queen", "The fox said to the bird"


@pytest.fixture(scope="module")
def found(tiny):
    return patch_map(tiny, CLEAN, CORRUPTED, " the", " of")


def test_a_cell_is_one_run_with_one_activation_of_the_clean_prompt(tiny, found):
    ids, trace = tiny.tokenizer.encode(CORRUPTED), tiny.trace(CLEAN)
    sources = {"resid_pre": trace.residual, "attn_out": trace.attn_out, "mlp_out": trace.mlp_out}
    for place, source in sources.items():
        for layer, position in ((0, 1), (1, 3), (2, 5)):

            def hook(site, at, x, place=place, layer=layer, position=position, source=source):
                if (site, at) != (place, layer):
                    return x
                x = x.copy()
                x[position] = source[layer, position]
                return x

            logits = forward(dict(tiny.checkpoint.tensors), tiny.config, ids, hook=hook)[0][-1]
            difference = float(logits[found.answer] - logits[found.other])
            span = found.clean_difference - found.corrupted_difference
            expected = (difference - found.corrupted_difference) / span
            assert found.effects[place][layer, position] == pytest.approx(expected, abs=1e-3)


def test_nothing_changes_before_the_prompts_differ(found):
    assert all(not values[:, 0].any() for values in found.effects.values())


def test_the_stream_of_the_last_token_brings_everything_back_once_it_holds_all(tiny):
    found = patch_map(tiny, "The king", "The fox", " the", " of")
    np.testing.assert_allclose(found.effects["resid_pre"][:, -1], 1, atol=1e-3)


def test_the_default_answers_are_the_likeliest(tiny):
    answers = [int(tiny.logits(prompt)[-1].argmax()) for prompt in (CLEAN, CORRUPTED)]
    if answers[0] == answers[1]:
        with pytest.raises(UsageError, match="both prompts have the same answer"):
            patch_map(tiny, CLEAN, CORRUPTED)
    else:
        found = patch_map(tiny, CLEAN, CORRUPTED)
        assert [found.answer, found.other] == answers


def test_too_many_tokens_are_refused(tiny):
    with pytest.raises(UsageError, match="a map holds at most 128"):
        patch_map(tiny, [1] * 129, [2] * 129)


def test_the_map_marks_spaces_as_the_playground_does(found):
    assert "␣king (␣fox)</th>" in patch_page(found, "tiny")
