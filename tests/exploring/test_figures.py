from __future__ import annotations

import pytest

from gpt2lab.exploring.figures import distinct, figures, unknown_words


def test_distinct_counts_within_each_sample():
    assert distinct([[1, 1, 2, 1]], 1) == pytest.approx(2 / 4)
    assert distinct([[1, 2, 1, 2]], 2) == pytest.approx(2 / 3)
    assert distinct([[1, 2], [1, 2]], 1) == 1
    assert distinct([[1], []], 2) is None


def test_unknown_words_are_a_share_of_words():
    assert unknown_words(["The kng said 42"], {"the", "said"}) == pytest.approx(1 / 3)
    assert unknown_words(["42 …"], {"the"}) is None


def test_samples_without_tokens_have_no_figures():
    nothing = figures([[]], [""], None, None)
    assert (nothing.n_tokens, nothing.surprisal, nothing.repeated, nothing.distinct[0]) == (0, None, None, None)
