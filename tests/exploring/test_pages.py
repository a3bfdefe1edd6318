"""Pages are complete and self-contained, and no text becomes markup in them."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

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

NASTY = "</script><script>alert('1')</script><img src=x onerror=\"alert(2)\">&amp;\x1b[31m"


class Elements(HTMLParser):
    """A parser that collects elements, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def pages(tiny) -> dict[str, str]:
    params = SamplingParams()
    return {
        "sweep": sweep_page(sweep(tiny, Request(NASTY, params, (0.0, 100.0), nsamples=2, length=4, seed=1), NASTY)),
        "score": score_page(read_document(tiny, NASTY, NASTY), NASTY),
        "compare": compare_page(compare(tiny, tiny, NASTY, params, names=(NASTY, "b"), length=4, seed=1)),
        "attend": attend_page(attend(tiny, NASTY), NASTY),
        "patch": patch_page(patch_map(tiny, NASTY + " a", NASTY + " b", " the", " of"), NASTY),
    }


@pytest.mark.parametrize("name", ["sweep", "score", "compare", "attend", "patch"])
def test_a_page_is_well_formed_and_shows_markup_in_a_prompt_as_text(pages, name):
    elements = Elements()
    elements.feed(pages[name])
    elements.close()
    assert elements.open == []
    assert elements.tags.count("script") == (2 if name == "attend" else 1)
    assert "img" not in elements.tags
    assert not [key for key, _ in elements.attributes if key.startswith("on")]
    assert "<script>alert('1')" in elements.text  # in the heading, as text
    assert "\x1b" not in pages[name] and "␛[31m" in elements.text


@pytest.mark.parametrize("name", ["sweep", "score", "compare", "attend", "patch"])
def test_a_page_asks_nobody_for_anything(pages, name):
    elements = Elements()
    elements.feed(pages[name])
    links = [value for key, value in elements.attributes if key in ("href", "src", "action", "srcset")]
    assert links == ["data:,"]
    style = re.search(r"<style>(.*?)</style>", pages[name], re.S)[1]
    assert "url(" not in style and "@import" not in style
    assert "default-src 'none'" in pages[name]


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
    shown = Elements()
    shown.feed(pages["score"])
    assert "alert('1')</script><img src=x onerror=" in shown.text


def test_percentages_keep_two_digits_where_they_are_small():
    assert [html.percent(p) for p in (1, 0.1234, 0.001, 0.000123, 0)] == ["100 %", "12.3 %", "0.10 %", "0.012 %", "0 %"]
