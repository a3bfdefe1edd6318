"""The keyboard: nothing drops the focus, toolbars are one tab stop, sliders reach their ends, tokens have names."""

from __future__ import annotations

import pytest

from .playground import ended, visit, write

pytestmark = pytest.mark.slow

FOCUSED = "() => document.activeElement.id || document.activeElement.tagName"


@pytest.mark.parametrize("button", ["replay", "continue"])
def test_a_button_that_is_disabled_by_its_own_press_keeps_the_focus(page, button):
    write(visit(page))
    page.focus(f"#{button}")
    page.keyboard.press("Enter")
    ended(page)
    assert page.evaluate(FOCUSED) == button


def test_stop_keeps_the_focus(page):
    visit(page, max_tokens=400)
    page.click("#run")
    page.locator("#stop[aria-disabled=false]").wait_for()
    page.focus("#stop")
    page.keyboard.press("Enter")
    ended(page)
    assert page.evaluate(FOCUSED) == "stop"


def test_a_disabled_button_does_nothing(page):
    write(visit(page))
    page.focus("#back")
    page.keyboard.press("Enter")
    assert page.locator("#back").get_attribute("aria-disabled") == "true"
    assert page.locator("[role=treeitem]").count() == 1


def test_a_form_s_buttons_keep_the_focus(page, expect):
    visit(page, max_tokens=8)
    page.get_by_label("Temperatures", exact=True).fill("0 1")
    page.locator("#sweep button[type=submit]").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#sweep [role=status]")).to_contain_text("Done")
    assert page.evaluate("() => document.activeElement.textContent") == "Sweep"


def test_a_message_that_goes_hands_the_focus_on(page, complaints):
    complaints.forgive("net::ERR_")
    visit(page)
    page.locator("#tokens .given").first.wait_for()
    page.route("**/v1/completions", lambda route: route.abort())
    page.click("#run")
    page.get_by_role("button", name="Dismiss").focus()
    page.keyboard.press("Enter")
    assert page.evaluate(FOCUSED) == "run"


def test_from_the_prompt_to_the_text_there_are_few_tab_stops(page):
    write(visit(page))
    page.focus("#prompt")
    stops = 0
    while page.evaluate("() => document.activeElement.dataset.place") is None:
        page.keyboard.press("Tab")
        stops += 1
        assert stops <= 8


def test_the_arrow_keys_go_through_the_toolbar(page):
    write(visit(page))
    page.focus("#back")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(FOCUSED) == "replay"
    page.keyboard.press("End")
    assert page.evaluate(FOCUSED) == "load"
    assert page.locator(".tools[role=toolbar] [tabindex='0']").count() == 1


def test_the_thumb_of_a_slider_reaches_its_ends(page):
    visit(page)
    page.click(".penalties summary")
    sides = "['paddingLeft', 'paddingRight', 'borderLeftWidth', 'borderRightWidth']"
    box = f"(e) => {sides}.map((side) => getComputedStyle(e)[side])"
    for slider in page.locator("#controls input[type=range]").all():
        assert slider.evaluate(box) == ["0px"] * 4
        for key, end in (("Home", "0"), ("End", "1000")):
            slider.press(key)
            assert slider.input_value() == end


def test_every_token_of_white_space_has_a_name(page):
    write(visit(page, prompt="One\n\ntwo\n three "))
    options = page.locator("#tokens [role=option]")
    nameless = [each for each in options.all() if not (each.text_content().strip() or each.get_attribute("aria-label"))]
    assert nameless == []
    assert page.locator("#tokens .newline").first.get_attribute("aria-label") in ("new line", "2 new lines")
