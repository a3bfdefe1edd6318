"""Pages are complete and self-contained, and no text becomes markup in them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from gpt2lab.exploring.attend import attend
from gpt2lab.exploring.attend_page import attend_page
from gpt2lab.exploring.compare import compare
from gpt2lab.exploring.compared import compare_page
from gpt2lab.exploring.document import score_page
from gpt2lab.exploring.patch import patch_map
from gpt2lab.exploring.patch_page import patch_page
from gpt2lab.exploring.score import read_document
from gpt2lab.exploring.sweep import Request, sweep
from gpt2lab.exploring.swept import sweep_page
from gpt2lab.markup import html
from gpt2lab.sampling import SamplingParams
from notebooks import Elements

NASTY = "</script><script>alert('1')</script><img src=x onerror=\"alert(2)\">&amp;\x1b[31m"


@pytest.fixture(scope="module")
def results(tiny) -> dict[str, Any]:
    params = SamplingParams()
    return {
        "sweep": sweep(tiny, Request(NASTY, params, (0.0, 100.0), nsamples=2, length=4, seed=1), NASTY),
        "score": read_document(tiny, NASTY, NASTY),
        "compare": compare(tiny, tiny, NASTY, params, names=(NASTY, "b"), length=4, seed=1),
        "attend": attend(tiny, NASTY),
        "patch": patch_map(tiny, NASTY + " a", NASTY + " b", " the", " of"),
    }


@pytest.fixture(scope="module")
def pages(results) -> dict[str, str]:
    return {
        "sweep": sweep_page(results["sweep"]),
        "score": score_page(results["score"], NASTY),
        "compare": compare_page(results["compare"]),
        "attend": attend_page(results["attend"], NASTY),
        "patch": patch_page(results["patch"], NASTY),
    }


@pytest.mark.parametrize("name", ["sweep", "score", "compare", "attend", "patch"])
def test_a_page_is_well_formed_and_shows_markup_in_a_prompt_as_text(pages, name):
    elements = Elements(pages[name])
    assert elements.open == []
    assert elements.tags.count("script") == (2 if name == "attend" else 1)
    assert "img" not in elements.tags
    assert not [key for key, _ in elements.attributes if key.startswith("on")]
    assert "<script>alert('1')" in elements.text  # in the heading, as text
    assert "\x1b" not in pages[name] and "␛[31m" in elements.text


@pytest.mark.parametrize("name", ["sweep", "score", "compare", "attend", "patch"])
def test_a_page_asks_nobody_for_anything(pages, name):
    elements = Elements(pages[name])
    links = [value for key, value in elements.attributes if key in ("href", "src", "action", "srcset")]
    assert links == ["data:,"]
    style = re.search(r"<style>(.*?)</style>", pages[name], re.S)[1]
    assert "url(" not in style and "@import" not in style
    assert "default-src 'none'" in pages[name]


@pytest.mark.parametrize("name", ["sweep", "score", "compare", "attend", "patch"])
def test_a_notebook_gets_the_same_without_scripts(results, name):
    elements = Elements(results[name]._repr_html_())
    assert elements.open == []
    assert "script" not in elements.tags
    assert not [key for key, _ in elements.attributes if key.startswith(("on", "data-"))]
    assert all(value.startswith("data:image/") for value in elements.values("src"))
    assert not elements.values("href")


@pytest.mark.parametrize("name", ["sweep", "score", "compare", "attend", "patch"])
def test_a_result_prints_as_one_short_line(results, name):
    written = repr(results[name])
    assert written.startswith("<") and "\n" not in written and len(written) < 250


def test_the_tokens_in_a_notebook_are_those_of_the_page(results, pages):
    def tinted(markup: str) -> list[str]:
        return re.findall(r'class="(t p\d[^"]*?)(?: known)?"', markup.partition("<h2>Samples")[2])

    assert len(tinted(pages["sweep"])) > 10
    assert tinted(results["sweep"]._repr_html_()) == tinted(pages["sweep"])


def test_a_cell_of_the_lens_has_its_card_as_its_title(results):
    titles = Elements(results["attend"]._repr_html_()).values("title")
    assert len(titles) == sum(map(len, results["attend"].lens))
    assert all(re.match(r"probability: .* %\nnext:\n  ", title) for title in titles)


def test_a_notebook_has_a_picture_of_each_head(results):
    n_layer, n_head = results["attend"].weights.shape[:2]
    assert len(Elements(results["attend"]._repr_html_()).values("src")) == n_layer * n_head


def test_data_for_a_script_cannot_end_it():
    data = {"text": "</script><!--"}
    written = html.json_in_html(data)
    assert "<" not in written and json.loads(written) == data


def test_tokens_carry_what_their_card_says(pages):
    texts = re.findall(r"data-tokens='(.*?)'", pages["sweep"])
    assert len(texts) == 4  # two at each temperature
    import html as standard

    token = json.loads(standard.unescape(texts[0]))[0]
    assert [name for name, _ in token["rows"]][:2] == ["probability", "with the settings"]
    assert len(token["lists"][0][1]) == 5


def test_a_text_can_be_read_without_its_script(pages):
    shown = Elements(pages["score"])
    assert "alert('1')</script><img src=x onerror=" in shown.text


def test_percentages_keep_two_digits_where_they_are_small():
    assert [html.percent(p) for p in (1, 0.1234, 0.001, 0.000123, 0)] == ["100 %", "12.3 %", "0.10 %", "0.012 %", "0 %"]
