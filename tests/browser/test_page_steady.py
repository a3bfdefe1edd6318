"""The page keeps still under the user's hand: controls keep their place, and its parts agree about the token shown."""

from __future__ import annotations

import pytest

from .playground import alternatives, change, visit, write

pytestmark = pytest.mark.slow


def place_of(page, name):
    return page.locator(f"#controls input[type=range][data-setting={name}]").bounding_box()


def test_a_slider_keeps_its_place_while_it_is_dragged(new_page):
    page = write_and_pin(visit(new_page(width=1280, height=850)))
    before = place_of(page, "temperature")
    middle = before["y"] + before["height"] / 2
    page.mouse.move(before["x"] + before["width"] * 0.3, middle)
    page.mouse.down()
    for share in (0.5, 0.7, 0.98, 0.2, 0.0):
        page.mouse.move(before["x"] + before["width"] * share, middle, steps=3)
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert place_of(page, "temperature") == before
    page.mouse.up()
    assert page.locator("#controls input[type=number][data-setting=temperature]").input_value() == "0"


def write_and_pin(page):
    write(page)
    page.locator("#tokens .drawn").nth(5).click()
    alternatives(page)
    return page


def test_every_part_of_the_page_keeps_its_place_when_a_stage_is_turned_on(new_page):
    page = write_and_pin(visit(new_page(width=1280, height=850)))
    parts = "['#settings', '#inspector', '#tokens', '.stages']"
    tops = f"() => {parts}.map((part) => document.querySelector(part).getBoundingClientRect().y)"
    before = page.evaluate(tops)
    for settings in ({"temperature": 0}, {"temperature": 1.3}, {"top_k": 2}, {"top_p": 0.1}):
        change(page, **settings)
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert page.evaluate(tops) == before


def test_while_logits_are_on_their_way_the_table_shows_no_other_token(page):
    write_and_pin(visit(page))
    other = page.locator("#tokens .drawn").nth(9)
    held = []
    page.route("**/playground/logits", lambda route: held.append(route))
    other.click()
    page.locator("#stage-table[aria-busy=true]").wait_for()
    word = page.locator(".inspector-title .token-label").text_content()
    assert page.locator(".stage-place code").text_content() == word
    assert page.locator("#stage-table table").is_hidden()
    while not held:
        page.wait_for_timeout(20)
    for route in held:
        route.continue_()
    page.locator("#stage-table[aria-busy=false]").wait_for()
    assert page.locator("#stage-table table").is_visible()
