"""The bytes that the page costs: a few for each token that is looked at, and none for files that the browser has."""

from __future__ import annotations

import pytest

import needs

from .playground import alternatives, change, visit, write

playwright = needs.package("playwright.sync_api")

pytestmark = pytest.mark.slow


def sizes(page, script):
    return page.evaluate(
        f"() => performance.getEntriesByType('resource').filter(({{ name }}) => {script})"
        ".map(({ name, transferSize }) => [name.split('/').pop(), transferSize])"
    )


def pointed_at(page):
    """Point at a drawn token whose logits the page does not have; return the token and the answer with its logits.

    It may have those of a token that was drawn where the pointer rested since the click that started the text.
    """
    for place in (6, 12, 18):
        token = page.locator("#tokens .drawn").nth(place)
        try:
            with page.expect_response("**/playground/logits", timeout=8_000) as answer:
                token.hover()
            return token, answer.value
        except playwright.TimeoutError:
            continue
    raise AssertionError("pointing at three tokens fetched nothing")


def test_a_token_that_is_pointed_at_costs_a_twelfth_of_all_logits(page):
    write(visit(page))
    alternatives(page)
    token, answer = pointed_at(page)
    assert len(answer.body()) == 2000 * 8 + 4
    with page.expect_response("**/playground/logits") as all_of_them:  # the draw needs them
        token.click()
    assert len(all_of_them.value.body()) == 50257 * 4


def test_where_the_other_tokens_matter_they_are_fetched(page):
    write(visit(page))
    alternatives(page)
    pointed_at(page)
    with page.expect_response("**/playground/logits") as answer:
        change(page, temperature=100)
    assert len(answer.value.body()) == 50257 * 4


def test_bars_of_the_likeliest_tokens_are_those_of_all(evaluate):
    script = """async (m) => {
        const { stages } = await import('/page/sampling.js');
        const ids = [464, 5822];
        const top = await m.likeliestLogits('tales', ids, 50257);
        const all = await m.logits('tales', ids);
        const [p, q] = [top.values, all].map((values) => stages(values, {})[0].probabilities);
        const known = [...top.known];
        return [known.length, Math.max(...known.map((id) => Math.abs(p[id] / q[id] - 1))),
            known.every((id) => top.values[id] === all[id])];
    }"""
    n, error, exact = evaluate("logits.js", script)
    assert n == 2000 and exact and error < 1e-5


def test_at_a_second_visit_the_browser_has_the_files(page):
    visit(page)
    page.goto("/")
    page.locator("html[data-ready]").wait_for()
    files = sizes(page, "name.includes('/page/')")
    assert len(files) > 30
    assert [each for each in files if each[1] > 0] == []


def test_everything_is_compressed(page):
    page.goto("/")
    page.locator("#tokens .given").first.wait_for()
    total = sum(size for _, size in sizes(page, "!name.includes('logits') && !name.includes('completions')"))
    assert 0 < total < 400_000
