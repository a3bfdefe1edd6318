"""The stages measured, and the draw that ``generate`` makes too."""

from __future__ import annotations

from itertools import pairwise

import pytest

from gpt2lab.errors import SamplingError
from gpt2lab.exploring.next import next_token
from gpt2lab.sampling import SamplingParams


@pytest.mark.parametrize("prompt", ["Hello there", ""])
@pytest.mark.parametrize("temperature", [0, 0.7, 1, 100])
def test_the_draw_is_that_of_generate_with_the_same_seed(exact, prompt, temperature):
    params = SamplingParams(temperature=temperature, top_k=0 if temperature else 7)
    for seed in range(6):
        (staged,) = next_token(exact, prompt, params, seed=seed).settings
        drawn = staged.drawn
        assert drawn.id == drawn.generated
        assert drawn.low <= drawn.number < drawn.high
        assert drawn.high - drawn.low == pytest.approx(drawn.probability, abs=1e-12)
        completion = exact.generate(prompt, length=1, seed=seed, ignore_eos=True, **vars(params))
        assert completion.tokens == [drawn.id]


def test_each_stage_tells_what_it_cut(tiny):
    params = SamplingParams(presence_penalty=1, temperature=0.7, top_k=40, top_p=0.9, min_p=0.05)
    result = next_token(tiny, "Hello there", params, seed=1, top=5)
    stages = result.settings[0].stages
    assert [stage.name for stage in stages] == ["model", "penalties", "temperature", "top_k", "top_p", "min_p"]
    assert [stage.cut for stage in stages[:4]] == [0, 0, 0, 50257 - stages[3].kept]
    for before, after in pairwise(stages):
        assert after.kept == before.kept - after.cut
        for p, q in zip(before.probabilities, after.probabilities, strict=True):
            if after.name.startswith(("top", "min")) and q:
                assert q == pytest.approx(p / (1 - after.cut_probability))  # renormalised


def test_several_temperatures_share_the_logits_and_the_number(tiny):
    result = next_token(tiny, "Hello", SamplingParams(), temperatures=(0, 1, 100), seed=3)
    assert [staged.params.temperature for staged in result.settings] == [0, 1, 100]
    assert len({staged.drawn.number for staged in result.settings}) == 1
    entropies = [staged.stages[-1].entropy for staged in result.settings]
    assert entropies == sorted(entropies) and entropies[0] == 0
    shown = {token.id for token in result.shown}
    assert all(staged.drawn.id in shown for staged in result.settings)


def test_a_bad_seed_is_an_error_before_the_model_runs(tiny):
    with pytest.raises(SamplingError, match="seed must be"):
        next_token(tiny, "Hello", SamplingParams(), seed=-1)
