"""Sampling in PyTorch: the tokens of the readable rules, from the same logits, bit for bit where there is a choice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import needs
from gpt2lab.errors import SamplingError
from gpt2lab.sampling import SamplingParams, exponential, rules

torch = needs.package("torch")

from gpt2lab.engines import pytorch_sampler  # noqa: E402

SAMPLER = pytorch_sampler.TorchSampler(60, torch.device("cpu"))
params_of = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0, 1e-300, 0.3, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 7, 60, 1000]),
    top_p=st.sampled_from([0, 0.3, 0.9, 1.0]),
    min_p=st.sampled_from([0, 0.1, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.4]),
    presence_penalty=st.sampled_from([0, 0.5]),
    frequency_penalty=st.sampled_from([0, -0.5]),
    logit_bias=st.sampled_from([{}, {3: 2.0, 5: -np.inf}]),
)


@given(data=st.data())
@settings(max_examples=60)
def test_tokens_are_those_of_the_rules(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    n = data.draw(st.integers(1, 5))
    logits = (3 * rng.standard_normal((n, 60))).astype(np.float32).round(data.draw(st.integers(0, 6)))  # many ties
    rows = [
        pytorch_sampler.Row(
            data.draw(params_of),
            data.draw(st.integers(0, 2**63 - 1)),
            data.draw(st.integers(0, 2**64 - 1)),
            data.draw(st.integers(0, 2**32 - 1)),
            data.draw(st.lists(st.integers(0, 59), max_size=8)),
            data.draw(st.integers(0, 3)),
        )
        for _ in range(n)
    ]
    for row, values, drawn in zip(rows, logits, SAMPLER.draw(torch.from_numpy(logits), rows), strict=True):
        place = {"seed": row.seed, "stream": row.stream, "position": row.position}
        assert drawn is not None
        assert drawn.token == rules.sample(values, row.params, **place, history=row.history)
        assert drawn.logprob == pytest.approx(rules.logprob(values, drawn.token), abs=1e-12)
        assert [id for id, _ in drawn.top] == rules.largest(values, row.top).tolist()


def test_exponentials_and_random_numbers_are_the_rules_to_the_bit():
    x = np.concatenate([-np.geomspace(1e-300, 800, 4000), [0.0, -708.0, -708.1, -np.inf]])
    np.testing.assert_array_equal(pytorch_sampler.exp(torch.from_numpy(x)).numpy(), exponential.exp(x))
    rows = [pytorch_sampler.Row(SamplingParams(), 7**n, 11**n, n, (), 0) for n in range(18)]
    expected = [rules.uniform(row.seed, row.stream, row.position) for row in rows]
    assert pytorch_sampler._uniforms(rows).tolist() == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_without_a_distribution_is_reported_and_the_others_are_drawn(bad):
    logits = torch.zeros(2, 60)
    logits[1, 5] = bad
    rows = [pytorch_sampler.Row(SamplingParams(temperature=0), 0, 0, 0, (), 0)] * 2
    good, none = SAMPLER.draw(logits, rows)
    assert good is not None and good.token == 0
    assert none is None
    assert f"the logit of token 5 is {bad} after model" in str(SAMPLER.error(logits[1], rows[1]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("params", [SamplingParams(top_k=5), SamplingParams(top_k=5, temperature=0.8, top_p=0.9)])
def test_top_k_reports_rows_without_a_distribution_even_if_all_are(bad, params):
    logits, row = torch.full((2, 60), bad), pytorch_sampler.Row(params, 0, 0, 0, (), 0)
    assert SAMPLER.draw(logits, [row, row]) == [None, None]
    assert isinstance(SAMPLER.error(logits[0], row), SamplingError)


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1},
        {"seed": 2**63},
        {"stream": 0.5},
        {"position": 2**32},
        {"history": [60], "params": SamplingParams(presence_penalty=1)},
        {"params": SamplingParams(logit_bias={60: 1.0})},
        {"params": SamplingParams(logit_bias={2**40: 1.0})},
    ],
)
def test_draws_out_of_range_are_refused(wrong):
    usual = {"params": SamplingParams(), "seed": 0, "stream": 0, "position": 0, "history": (), "top": 0}
    with pytest.raises(SamplingError):
        SAMPLER.draw(torch.zeros(1, 60), [pytorch_sampler.Row(**{**usual, **wrong})])
