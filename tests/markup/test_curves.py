from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from gpt2lab.markup.curves import HEIGHT, WIDTH, Line, curve_chart, thinned, ticks


def test_a_chart_has_a_line_for_each_that_has_points():
    lines = [Line("a <b>", 0, [(1, 3.0), (2, 2.0)], dots=True), Line("b", 1, [])]
    root = ElementTree.fromstring(curve_chart("Title", lines, "updates", 10))
    assert len(root.findall("polyline")) == 1 and len(root.findall("circle")) == 2
    assert "● a <b>" in [text.text for text in root.findall("text")]


@pytest.mark.parametrize("points", [[], [(0, 0.0)], [(1, 5.0), (9, 5.0)], [(3, 1e-8), (5000, 1e9)]])
def test_a_chart_stays_within_its_frame(points):
    root = ElementTree.fromstring(curve_chart("Title", [Line("a", 0, points)], "updates", 10))
    drawn = [pair.split(",") for line in root.findall("polyline") for pair in line.get("points").split()]
    assert len(drawn) == len(points)
    assert all(0 <= float(x) <= WIDTH and 0 <= float(y) <= HEIGHT for x, y in drawn)


def test_lower_values_are_drawn_lower():
    (line,) = ElementTree.fromstring(curve_chart("", [Line("a", 0, [(1, 3.0), (2, 2.0)])], "", 2)).findall("polyline")
    (x1, y1), (x2, y2) = (map(float, pair.split(",")) for pair in line.get("points").split())
    assert x1 < x2 and y1 < y2  # SVG counts from the top


@pytest.mark.parametrize(
    "low, high, expected",
    [(0, 10, [0, 2, 4, 6, 8, 10]), (0, 1234, [0, 500, 1000]), (2.9, 3.4, [2.9, 3.0, 3.1, 3.2, 3.3, 3.4])],
)
def test_ticks_are_round_numbers(low, high, expected):
    assert list(ticks(low, high, 5)) == pytest.approx(expected)


def test_neighbouring_points_become_their_mean():
    assert thinned([(1, 1.0), (2, 3.0), (3, 5.0)], 2) == [(2, 2.0), (3, 5.0)]
    assert thinned([(1, 1.0), (2, 3.0)], 2) == [(1, 1.0), (2, 3.0)]
    assert thinned([], 2) == []
