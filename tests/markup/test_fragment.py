"""Fragments for notebooks: style that stays inside, pictures that load nothing, text that never becomes markup."""

from __future__ import annotations

import base64
import re
import struct
import xml.etree.ElementTree as ElementTree
import zlib

import numpy as np
import pytest

from gpt2lab.exploring.charts import Panel, svg
from gpt2lab.markup import fragment, html
from notebooks import Elements

NASTY = "</style></div><script>alert('1')</script><img src=x onerror=\"alert(2)\">"


def content_of(picture: str) -> bytes:
    """Return the file in a picture's address."""
    return base64.b64decode(re.search(r'src="data:[\w/+]+;base64,([^"]*)"', picture)[1])


def test_the_style_changes_nothing_outside():
    (style,) = re.findall(r"<style>(.*?)</style>", fragment.fragment("<p>x</p>"), re.S)
    assert style.startswith(".gpt2lab {") and style.count("{") == style.count("}")
    assert ":root" not in style and not re.search(r"\bbody\b", style)


def test_the_style_is_that_of_the_reports():
    (style,) = re.findall(r"<style>(.*?)</style>", fragment.fragment(""), re.S)
    rules = re.findall(r"^\.\w[^\n]*\{[^\n]*\}$", "".join(path.read_text() for path in html.STYLES), re.M)
    assert len(rules) > 20
    assert [rule for rule in rules if rule not in style] == []


@pytest.mark.parametrize("part", [fragment.prompt, fragment.plain_text, fragment.faint])
def test_a_text_never_becomes_markup(part):
    elements = Elements(fragment.fragment(part(NASTY)))
    assert elements.open == [] and elements.text == NASTY
    assert not {"script", "img"} & set(elements.tags)


def test_titled_tokens_show_their_cards_without_a_script():
    record: html.Record = {
        "text": " <b>", "probability": 0.03, "rows": [("id", "7")], "lists": [("instead", [("'\"<", 0.25)])],
    }  # fmt: skip
    elements = Elements(html.titled_tokens([record], "label"))
    assert elements.text == " <b>"
    assert elements.values("class") == ["tokens", "t p2"]
    assert elements.values("title") == ["id: 7\ninstead:\n  '\\'\"<' 25.0 %"]


def test_a_long_text_is_cut_and_says_so():
    records: list[html.Record] = [{"text": "a"}] * (html.MOST_TITLED + 1234)
    elements = Elements(html.titled_tokens(records, "label"))
    assert elements.tags.count("span") == html.MOST_TITLED
    assert elements.text.endswith("a… and 1,234 more tokens")


def test_tokens_get_the_part_of_the_text_that_is_theirs():
    cut = html.probable([1, 2, 3], ["one", " two", " three"], [-0.1, -0.2, -0.3], "one tw")
    assert [record["text"] for record in cut] == ["one", " tw", ""]
    held = html.probable([1, 2], ["one", ""], [-0.1, -0.2], "one\N{REPLACEMENT CHARACTER}")
    assert [record["text"] for record in held] == ["one", "\N{REPLACEMENT CHARACTER}"]


def test_a_chart_becomes_a_picture_with_its_style_inside():
    picture = fragment.svg_picture(svg(Panel("Title", "nats", ["0", "1"], {"x": [1.0, 2.0]})), 'a "chart"')
    root = ElementTree.fromstring(content_of(picture))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "--c0" in root.find("{*}style").text
    assert Elements(picture).values("alt") == ['a "chart"']


def test_weights_become_a_png_whose_opacity_is_their_root():
    weights = np.array([[0.0, 1.0], [0.25, 0.04]])
    png = content_of(fragment.heat_picture(weights, 2, "head"))
    chunks, at = {}, 8
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        name, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        assert struct.unpack(">I", png[at + 8 + size : at + 12 + size]) == (zlib.crc32(name + data),)
        chunks[name], at = data, at + 12 + size
    assert struct.unpack(">II", chunks[b"IHDR"][:8]) == (4, 4)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(4, 5)[:, 1:]
    assert [[chunks[b"tRNS"][place] for place in row] for row in rows[::2, ::2]] == [[0, 255], [128, 51]]


def test_pictures_of_attention_have_the_colour_of_the_reports():
    style = (html.HERE / "report.css").read_text(encoding="utf-8")
    assert re.search(r"--lens: ([\d, ]+);", style)[1] == ", ".join(map(str, fragment.LENS))


def test_the_tints_are_those_of_the_page():
    script = (html.PLAYGROUND / "token_spans.js").read_text(encoding="utf-8")
    edges = re.search(r"const EDGES = Object\.freeze\(\[(.*?)\]\)", script)
    words = re.search(r"const words = \[(.*?)\]", script)
    assert edges is not None and words is not None
    assert tuple(map(float, edges[1].split(", "))) == html.EDGES
    assert tuple(words[1].strip('"').split('", "')) == html.TINTS
