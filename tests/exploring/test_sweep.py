from __future__ import annotations

import pytest

from gpt2lab.errors import SamplingError
from gpt2lab.exploring.sweep import Request, sweep
from gpt2lab.sampling import SamplingParams

PLAIN = SamplingParams()


def test_samples_are_those_of_generate_and_streams_are_shared(tiny):
    result = sweep(tiny, Request("Hello", PLAIN, (0.0, 1.0), nsamples=2, length=8, seed=5))
    for setting in result.settings:
        expected = tiny.generate("Hello", n=2, length=8, seed=5, temperature=setting.params.temperature)
        assert [sample.text for sample in setting.samples] == [completion.text for completion in expected]
        assert [[r.id for r in sample.readings] for sample in setting.samples] == [c.tokens for c in expected]


def test_temperature_zero_leaves_nothing_to_chance_and_a_hundred_nearly_all(tiny):
    result = sweep(tiny, Request("Hello", PLAIN, (0.0, 100.0), nsamples=1, length=8, seed=5, ignore_eos=True))
    cold, hot = (setting.figures for setting in result.settings)
    assert cold.drawn_entropy == 0
    assert hot.drawn_entropy == pytest.approx(10.82, abs=0.1)  # ln 50257
    assert hot.surprisal > cold.surprisal


def test_copied_runs_and_unknown_words_are_told_where_there_is_a_text(tiny, tmp_path):
    plain = sweep(tiny, Request("Hello", PLAIN, (0.0,), nsamples=1, length=8, seed=5))
    assert plain.settings[0].figures.copied is None and plain.settings[0].figures.unknown_words is None
    (tmp_path / "text.txt").write_text(plain.settings[0].samples[0].text, encoding="utf-8")
    against = str(tmp_path / "text.txt")
    result = sweep(tiny, Request("Hello", PLAIN, (0.0,), nsamples=1, length=8, seed=5, against=against))
    words = plain.settings[0].samples[0].text.split()
    assert result.settings[0].figures.copied.n_words == len(words)
    assert result.settings[0].figures.unknown_words in (0.0, None)


def test_a_seed_is_chosen_if_there_is_none_and_told(tiny):
    result = sweep(tiny, Request("Hello", PLAIN, (1.0,), nsamples=1, length=2))
    assert f"--seed {result.request.seed}" in result.settings[0].command


def test_a_bad_temperature_is_an_error_before_any_work(tiny):
    with pytest.raises(SamplingError, match="temperature"):
        sweep(tiny, Request("Hello", PLAIN, (1.0, -1.0)))
