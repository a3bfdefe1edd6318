from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

import needs
from gpt2lab.exploring.charts import Panel, scale_top, svg
from gpt2lab.exploring.plots import picture
from gpt2lab.exploring.sweep import Request, sweep
from gpt2lab.exploring.swept import panels
from gpt2lab.sampling import SamplingParams


@pytest.fixture(scope="module")
def swept(tiny):
    return sweep(tiny, Request("Hello", SamplingParams(), (0.0, 1.0), nsamples=1, length=6, seed=1))


def test_there_is_a_chart_for_every_kind_of_figure_that_there_is(swept):
    assert [panel.title for panel in panels(swept)] == ["Surprisal and entropy", "Variety", "Repetition"]


def test_a_chart_has_a_point_for_each_value_and_none_for_none():
    panel = Panel("Title <b>", "nats", ["0", "1", "2"], {"x": [1.0, None, 3.0]})
    element = ElementTree.fromstring(svg(panel))
    assert len(element.findall("circle")) == 2
    assert element.find("title").text == "Title <b> (nats) at 0, 1, 2"
    assert "none" in element.find("desc").text


@pytest.mark.parametrize("largest, top", [(0.0, 1), (0.07, 0.1), (1.0, 1), (10.9, 12), (23, 30), (80.0, 80), (99, 100)])
def test_scales_end_at_a_number_that_four_parts_suit(largest, top):
    assert scale_top(Panel("", "", ["a"], {"x": [largest]})) == pytest.approx(top)


def test_pictures_are_files_of_their_kind_and_always_the_same(swept):
    needs.check("matplotlib")
    assert picture(swept, "png").startswith(b"\x89PNG")
    drawn = picture(swept, "svg")
    assert b"<svg" in drawn and drawn == picture(swept, "svg")
