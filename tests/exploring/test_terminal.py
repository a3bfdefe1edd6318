"""Results of exploring in a terminal."""

from __future__ import annotations

from gpt2lab.exploring.terminal import LEGEND, STYLES, level


def test_levels_grow_as_probabilities_shrink():
    assert [level(p) for p in (1, 0.5, 0.3, 0.1, 0.02, 0.002, 0)] == [0, 0, 1, 2, 3, 4, 5]


def test_the_legend_names_every_level():
    assert LEGEND == ["≥ 50%", "≥ 20%", "≥ 5%", "≥ 1%", "≥ 0.1%", "less"]
    assert len(STYLES) == len(LEGEND)
