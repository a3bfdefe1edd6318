"""The HTML reports of `gpt2lab explore` in a browser: one file, tokens as in the playground, cards on hover."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gpt2lab import load
from gpt2lab.exploring.attend import attend
from gpt2lab.exploring.attend_page import attend_page
from gpt2lab.markup import html

from .conftest import GOLDEN

PROBABILITIES = [0.0005, 0.003, 0.03, 0.3, 0.7]
WORDS = [*(f" word{n}" for n in range(len(PROBABILITIES))), "\n\n", ""]


@pytest.fixture
def opened(page: Any) -> Callable[[str], Any]:
    """Provide ``opened(report)``: the page, once it shows ``report``."""

    def show(report: str) -> Any:
        page.route("**/report", lambda route: route.fulfill(body=report, content_type="text/html"))
        page.goto("/report")
        return page

    return show


def report_of(words: list[str]) -> str:
    records: list[html.Record] = [
        {"text": word, "rows": [("id", str(n))], "lists": [("instead", [("other", 0.25)])]}
        for n, word in enumerate(words)
    ]
    for record, probability in zip(records, PROBABILITIES, strict=False):
        record["probability"] = probability
    return html.page("A report", html.tints("Probability:") + html.tokens(records, "The text"))


def test_tokens_have_the_tints_of_the_playground(opened, evaluate):
    page = opened(report_of(WORDS))
    classes = [span.get_attribute("class").split() for span in page.locator(".tokens .t").all()]
    levels = evaluate("token_spans.js", "(m, p) => p.map(m.level)", PROBABILITIES)
    assert levels == list(range(5))
    assert [names[:2] for names in classes[:5]] == [["t", f"p{level}"] for level in levels]
    assert [names[1] for names in classes[5:]] == ["newline", "part"]
    assert page.locator(".tokens").text_content() == "".join(WORDS)


def test_the_legend_is_the_playgrounds(opened):
    shown = opened(report_of(WORDS)).locator(".tints li").all_text_contents()
    assert shown == ["under 0.1 %", "0.1 to 1 %", "1 to 10 %", "10 to 50 %", "50 % and more"]


def test_a_token_pointed_at_shows_its_card(opened):
    page = opened(report_of(WORDS))
    page.locator(".tokens .t").nth(3).hover()
    card = page.locator("#card")
    card.wait_for()
    assert card.locator("b").text_content() == '" word3"'
    assert card.locator("td").all_text_contents() == ["3", "25.0 %", ""]
    page.keyboard.press("Escape")
    assert card.is_hidden()


def test_arrow_keys_walk_through_a_text(opened):
    page = opened(report_of(WORDS))
    page.locator(".tokens").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    assert page.locator("#card b").text_content() == '" word1"'


def test_a_page_of_attention_paints_the_head_that_is_chosen(opened):
    attention = attend(load(GOLDEN / "tiny"), "One two three")
    page = opened(attend_page(attention, "tiny"))
    assert page.locator("#head").text_content() == "Layer 1, head 1"
    page.locator("[data-layer='1'][data-head='1']").click()
    assert page.locator("#head").text_content() == "Layer 2, head 2"
    assert page.locator("[data-layer='1'][data-head='1']").get_attribute("aria-pressed") == "true"
    assert page.locator("#looks .t").all_text_contents() == ["One", "two", "three"]
    page.locator(".lens td").first.hover()
    assert page.locator("#card caption").text_content() == "next"


def test_the_cells_of_the_lens_show_their_cards_by_keyboard(opened):
    attention = attend(load(GOLDEN / "tiny"), "One two three")
    page = opened(attend_page(attention, "tiny"))
    page.get_by_role("group", name="Logit lens").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    rows = page.locator(".lens tbody tr")
    assert "here" in rows.nth(1).locator("td").nth(1).get_attribute("class")
    assert page.locator("#card caption").text_content() == "next"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")  # no row above: it stays
    assert "here" in rows.nth(0).locator("td").nth(1).get_attribute("class")


def test_python_and_the_page_write_probabilities_alike(evaluate):
    values = [0, 1e-9, 9.9e-6, 1e-5, 0.000123, 0.001, 0.00994, 0.0123, 0.5, 0.9994, 0.99901, 0.9999, 1]
    found = evaluate("token_spans.js", "(m, values) => values.map(m.probabilityText)", values)
    assert found == [html.percent(value) for value in values]
