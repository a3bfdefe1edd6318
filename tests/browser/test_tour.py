"""The tour: a reader new to the subject can follow every step, on a wide screen, on a phone, and by keyboard."""

from __future__ import annotations

import json
import re

import pytest

from .playground import PROMPT, alternatives, asked, change, ended, show, text, visit, write

pytestmark = pytest.mark.slow  # a browser that clicks through the page

WIDE, PHONE = (1280, 850), (390, 844)
OWN = {"prompt": "The old king", "temperature": 0, "top_k": 7, "seed": 3, "max_tokens": 12}

SEEN = """() => {
  const panel = document.querySelector(".tour");
  const sheet = document.querySelector("#inspector.open");
  const covers = [panel, sheet].filter((each) => each && getComputedStyle(each).position === "fixed");
  return [...document.querySelectorAll(".toured")].map((part) => {
    const box = part.getBoundingClientRect();
    let [top, bottom] = [Math.max(box.top, 0), Math.min(box.bottom, innerHeight)];
    const side = [...document.querySelectorAll(".side")].filter((each) => getComputedStyle(each).position === "sticky");
    for (const frame of [...side, ...covers].filter((each) => each !== part && each.contains(part))) {
      const edge = frame.getBoundingClientRect();
      [top, bottom] = [Math.max(top, edge.top), Math.min(bottom, edge.bottom)];
    }
    for (const cover of covers.filter((each) => !each.contains(part))) {
      const edge = cover.getBoundingClientRect();
      if (edge.right <= box.left || box.right <= edge.left) continue;
      if (edge.top <= top) top = Math.max(top, edge.bottom);
      else bottom = Math.min(bottom, edge.top);
    }
    return { name: part.id || part.className, height: box.height, seen: bottom - top };
  });
}"""


WHOLE_ROWS = """() => [...document.querySelectorAll(".alternative")]
  .filter((row) => row.getBoundingClientRect().bottom <= innerHeight).length"""


FRAMES = "async () => { for (let frame = 0; frame < 5; frame += 1) await new Promise(requestAnimationFrame); }"


GROWN = """() => { document.querySelector("section.ask").style.paddingBottom = "200px"; }"""


def parts(page):
    """Return the ringed parts: the height of each, and how much of it is in the window and not covered."""
    return page.evaluate(SEEN)


def panel(page):
    return page.get_by_role("dialog", name=re.compile(" of 9: "))


def press(page, name):
    panel(page).get_by_role("button", name=name).click()


def at_step(page, number, expect):
    """Wait for a step and for what it shows."""
    expect(panel(page).get_by_role("heading")).to_have_text(re.compile(f"^{number} of 9"))
    page.locator("#tokens .drawn").nth(5).wait_for()
    page.locator("#tokens .next:not(.drawing)").wait_for()
    if number >= 8:
        page.locator("#inside-body[aria-busy=false] #inside-attention li").first.wait_for()


def begun(page, number, expect, **settings):
    """Open the page at a step of the tour, with the user's own settings."""
    visit(page, f"/#tour={number}", **settings)
    at_step(page, number, expect)
    expect(page.locator("[data-setting=seed]")).to_have_value("1")  # the tour's
    at_step(page, number, expect)
    return page


def settings(page):
    return page.evaluate("import('/page/settings.js').then((m) => m.settings.get())")


# ---- the steps -------------------------------------------------------------------------------------------------------


def test_every_step_is_short_and_points_at_parts_of_the_page(page):
    visit(page)
    steps = page.evaluate("import('/page/tour_steps.js').then((m) => m.STEPS)")
    glossary = page.evaluate("import('/page/glossary.js').then((m) => Object.keys(m.GLOSSARY))")
    assert len(steps) == 9
    for step in steps:
        words = re.sub(r"\{(.+?)\|.+?\}", r"\1", f"{step['text']} {step['task']}").split()
        assert step["task"] and len(words) <= 50
        assert set(re.findall(r"\|(\w+)\}", step["text"])) <= set(glossary)
        for part in [*step["parts"], *step.get("narrowParts", [])]:
            assert page.locator(part).count() > 0 or part in (
                "#stage-table .draw-part",
                "#inside-lens tbody tr:last-child",
            )


@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_every_part_that_a_step_needs_is_in_view_and_not_covered(new_page, expect, size):
    page = new_page(width=size[0], height=size[1], has_touch=size == PHONE)
    begun(page, 1, expect)
    for number in range(1, 10):
        at_step(page, number, expect)
        page.wait_for_load_state("networkidle")  # nothing late may push a part away
        found = parts(page)
        assert len(found) >= (1 if number >= 8 else 2), number
        for part in found:
            assert part["seen"] >= min(120, part["height"]) - 1, (number, part)
        if number < 9:
            press(page, "Next")


def test_attention_is_in_view_although_the_panel_grows_above_it(page, expect):
    begun(page, 8, expect)
    expect(page.locator("#inside-lens tbody tr").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    (attention,) = parts(page)
    assert attention["name"] == "inside-reads" and attention["seen"] >= min(120, attention["height"])


def test_a_part_is_not_pulled_back_after_the_user_has_scrolled(page, expect):
    begun(page, 8, expect)
    page.wait_for_load_state("networkidle")
    page.mouse.move(640, 200)
    page.mouse.wheel(0, -4000)
    expect(page.get_by_role("link", name="Tour")).to_be_in_viewport()
    page.evaluate(GROWN)
    page.evaluate(FRAMES)
    assert page.evaluate("scrollY") == 0


def test_on_a_phone_another_token_can_be_tapped_beside_the_panel_and_the_list(new_page, expect):
    page = new_page(width=PHONE[0], height=PHONE[1], has_touch=True)
    begun(page, 2, expect)
    page.locator("#inspector.open").wait_for()
    page.locator("#tokens .drawn").nth(7).tap()
    expect(page.locator("#tokens .drawn").nth(7)).to_have_class(re.compile("pinned"))
    assert all(part["seen"] >= min(120, part["height"]) - 1 for part in parts(page))


def test_on_a_phone_the_cuts_are_seen_beside_their_slider(new_page, expect):
    page = new_page(width=PHONE[0], height=PHONE[1], has_touch=True)
    begun(page, 4, expect)
    page.locator("#inspector.open").wait_for()
    change(page, top_k=3)
    expect(page.locator(".alternative .left", has_text="cut: top-k")).to_have_count(7)
    assert page.evaluate(WHOLE_ROWS) >= 7
    slider = page.locator(".toured[data-field=top_k] input[type=range]")
    assert slider.bounding_box()["y"] < page.locator(".alternative").first.bounding_box()["y"]


def test_every_step_works_with_another_model(pair_server, new_page, expect):
    page = new_page(pair_server)
    begun(page, 1, expect, model="tiny")
    for number in range(1, 10):
        at_step(page, number, expect)
        assert all(part["seen"] >= min(120, part["height"]) - 1 for part in parts(page)), number
        expect(page.locator("#made")).to_contain_text("tiny")
        if number < 9:
            press(page, "Next")


def test_the_cuts_are_seen_whatever_the_user_and_the_step_before_have_set(page, expect):
    begun(page, 3, expect, temperature=0)
    change(page, temperature=100)
    press(page, "Next")
    at_step(page, 4, expect)
    change(page, top_k=3)
    expect(page.locator(".alternative .left", has_text="cut: top-k")).to_have_count(7)
    assert settings(page)["temperature"] == 1


def test_a_text_of_the_user_is_followed_too(page, expect):
    write(visit(page, **OWN))
    page.evaluate("() => { location.hash = '#tour=3'; }")
    at_step(page, 3, expect)
    page.locator("#tokens .drawn").nth(29).wait_for()
    change(page, temperature=100)
    page.locator("#tokens .changed").first.wait_for()


def test_a_prompt_that_is_typed_in_the_tour_gets_an_example(page, expect):
    begun(page, 3, expect)
    page.fill("#prompt", "The old king")
    expect(page.locator("#prompt-tokens code")).to_have_text(["The", "␣old", "␣king"])
    at_step(page, 3, expect)
    page.locator("#tokens .drawn").nth(29).wait_for()
    answer = asked(page, prompt="The old king", max_tokens=30, seed=1)
    assert text(page) == "The old king" + answer["choices"][0]["text"]
    change(page, temperature=100)
    page.locator("#tokens .changed").first.wait_for()


def test_no_message_about_the_text_before_stays_beside_the_example(page, expect):
    begun(page, 7, expect)
    page.click("#run")
    page.locator("[role=treeitem]").first.wait_for()
    ended(page)
    press(page, "Previous")
    at_step(page, 6, expect)
    expect(page.locator("#status")).to_be_empty()


def test_the_box_says_whether_texts_follow_in_the_tour(page, expect):
    write(visit(page, **OWN))
    page.evaluate("() => { location.hash = '#tour=3'; }")
    at_step(page, 3, expect)
    expect(page.locator("#follow")).to_be_checked()
    page.locator("#tokens .drawn").nth(29).wait_for()
    page.uncheck("#follow")
    before = text(page)
    change(page, temperature=100)
    page.wait_for_timeout(500)
    assert text(page) == before
    page.keyboard.press("Escape")
    expect(page.locator("#follow")).not_to_be_checked()


def test_on_a_wide_screen_the_headings_of_the_last_steps_are_in_their_rings(new_page, expect):
    page = new_page(width=WIDE[0], height=WIDE[1])
    begun(page, 8, expect)
    for number in (8, 9):
        at_step(page, number, expect)
        page.wait_for_load_state("networkidle")
        *_, part = parts(page)
        assert part["seen"] >= part["height"], part
        assert page.locator(".toured h3").count() == 1
        if number == 8:
            press(page, "Next")


def test_on_a_phone_the_panel_covers_no_part_of_the_list_of_heads(new_page, expect):
    page = new_page(width=PHONE[0], height=PHONE[1], has_touch=True)
    begun(page, 8, expect)
    page.wait_for_load_state("networkidle")
    (part,) = parts(page)
    assert part["name"] == "inside-reads" and part["seen"] >= part["height"]


def test_the_text_stays_under_the_eyes_while_the_list_beside_it_grows(page, expect):
    begun(page, 3, expect)
    places = []
    for temperature, rows in [(100, 11), (1, 10), (100, 11)]:  # at 100 the token drawn gets a row of its own
        change(page, temperature=temperature)
        expect(page.locator(".alternative")).to_have_count(rows)
        at_step(page, 3, expect)
        page.evaluate(FRAMES)
        places.append(page.locator("#tokens").bounding_box()["y"])
    assert len(set(places)) == 1


def test_the_number_stays_and_the_lengths_change(page, expect):
    begun(page, 5, expect)
    number = page.locator("#stage-table .draw b")
    expect(number).to_have_text(re.compile(r"^0\.\d{6}"))
    before = number.text_content()
    line = page.locator("#stage-table .draw").text_content()
    change(page, temperature=0.3)
    expect(page.locator("#stage-table .draw")).not_to_have_text(line)
    assert number.text_content() == before


def test_the_seed_draws_the_same_text_and_the_page_names_it(page, expect):
    begun(page, 7, expect)
    page.click("#run")
    page.locator("[role=treeitem]").first.wait_for()
    ended(page)
    expect(page.locator("#made.toured")).to_have_text(re.compile(r"seed 1\.$"))
    page.click("#replay")
    expect(page.locator("#status")).to_have_text(re.compile(r"^The same \d+ tokens again"))


def test_the_last_row_of_the_last_step_is_the_models_prediction(page, expect):
    begun(page, 9, expect)
    page.locator("#tokens .drawn.here").nth(0).wait_for()
    expect(page.locator("#tokens .here")).to_have_attribute("data-place", "15")
    likeliest = alternatives(page).first.locator(".token-label").text_content()
    last = page.locator("#inside-lens tbody tr").last
    expect(last.locator("code")).to_have_text(likeliest)
    expect(last.locator("th")).to_have_text(re.compile(r"^\d+, the last$"))
    assert page.locator("#inside-lens tbody th").first.text_content() == "none"


# ---- keyboard and focus ----------------------------------------------------------------------------------------------


def test_a_link_opens_a_step_and_the_keyboard_goes_on(page):
    visit(page, "/#tour=3")
    panel(page).get_by_role("heading", name="3 of 9: Temperature").wait_for()
    assert page.evaluate("document.activeElement.id") == "tour-title"
    while page.evaluate("document.activeElement.textContent") != "Next":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    panel(page).get_by_role("heading", name="4 of 9: The cuts").wait_for()
    assert page.url.endswith("#tour=4")
    page.keyboard.press("Escape")
    page.locator(".tour").wait_for(state="hidden")
    assert "#" not in page.url


def test_show_me_brings_the_part_back_and_makes_its_ring_flash(page, expect):
    begun(page, 8, expect)
    page.mouse.move(640, 200)
    page.mouse.wheel(0, -4000)
    expect(page.locator(".toured")).not_to_be_in_viewport()
    press(page, "Show me")
    expect(page.locator(".toured.flashing")).to_be_in_viewport()
    expect(page.locator(".toured:not(.flashing)")).to_be_in_viewport()


def test_the_keyboard_goes_to_the_part_of_a_step(page, expect):
    begun(page, 4, expect)
    press(page, "Show me")
    assert page.evaluate("document.activeElement.dataset.setting") == "top_k"


def test_the_tour_begins_without_previous_and_ends_with_finish(page, expect):
    begun(page, 9, expect)
    assert panel(page).get_by_role("button", name="Next").count() == 0
    page.evaluate("() => { location.hash = '#tour=1'; }")
    at_step(page, 1, expect)
    assert panel(page).get_by_role("button", name="Previous").get_attribute("aria-disabled") == "true"
    page.evaluate("() => { location.hash = '#tour=9'; }")
    at_step(page, 9, expect)
    press(page, "Finish")
    page.locator(".tour").wait_for(state="hidden")
    assert "#" not in page.url


def test_after_a_tour_the_focus_is_where_it_was_or_on_the_button_that_writes(page, expect):
    begun(page, 9, expect)
    press(page, "Finish")
    expect(page.locator("#run")).to_be_focused()
    tour = page.get_by_role("link", name="Tour")
    tour.click()
    at_step(page, 1, expect)
    page.keyboard.press("Escape")
    expect(tour).to_be_focused()


def test_escape_closes_a_definition_before_the_tour(page, expect):
    begun(page, 3, expect)
    panel(page).get_by_role("button", name="logit").click()
    expect(page.locator("#definition")).to_contain_text("2.72 times")
    page.keyboard.press("Escape")
    expect(page.locator("#definition")).to_be_hidden()
    expect(panel(page)).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".tour")).to_be_hidden()


# ---- what is given back ----------------------------------------------------------------------------------------------


def test_settings_and_text_of_the_user_come_back(page, expect):
    write(visit(page, **OWN))
    before = text(page)
    page.evaluate("() => { location.hash = '#tour=3'; }")
    at_step(page, 3, expect)
    expect(page.locator("#prompt")).to_have_value(PROMPT)
    change(page, temperature=100)
    page.keyboard.press("Escape")
    page.locator("[role=treeitem]").wait_for()
    now = settings(page)
    assert {name: now[name] for name in OWN} == OWN
    assert text(page) == before


def test_what_is_written_in_the_tour_is_kept_beside_the_text_of_the_user(page, expect):
    write(visit(page, **OWN))
    before = text(page)
    page.evaluate("() => { location.hash = '#tour=7'; }")
    at_step(page, 7, expect)
    page.click("#run")
    expect(page.locator("[role=treeitem]")).to_have_count(2)
    ended(page)
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_have_text("Your texts from the tour are under Branches.")
    assert text(page) == before
    show(page, 1)
    assert text(page).startswith(PROMPT)


def test_without_a_text_of_the_user_the_example_follows_a_tour(page, expect):
    begun(page, 7, expect, **OWN)
    page.click("#run")
    page.locator("[role=treeitem]").wait_for()
    ended(page)
    page.keyboard.press("Escape")
    expect(page.locator("#teach")).to_contain_text("An example")
    assert text(page).startswith(OWN["prompt"])
    assert page.locator("[role=treeitem]").count() == 1


def test_a_text_that_is_removed_in_the_tour_does_not_come_back(page, expect):
    write(visit(page, **OWN))
    page.evaluate("() => { location.hash = '#tour=7'; }")
    at_step(page, 7, expect)
    show(page, 0)
    page.click("#remove")
    expect(page.locator("[role=treeitem]")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(page.locator("#teach")).to_contain_text("An example")
    assert page.locator("[role=treeitem]").count() == 0


def test_a_model_chosen_in_the_tour_outlives_the_page(pair_server, new_page, expect):
    page = new_page(pair_server)
    begun(page, 3, expect, model="tales", temperature=0.5)
    page.select_option("#model", "tiny")
    page.goto("/glossary")
    stored = json.loads(page.evaluate("localStorage.getItem('gpt2lab.settings')"))
    assert (stored["model"], stored["temperature"]) == ("tiny", 0.5)


def test_a_tour_that_is_left_by_closing_the_page_changes_no_setting(page, expect):
    begun(page, 3, expect, **OWN)
    change(page, temperature=100)
    page.goto("/glossary")
    stored = json.loads(page.evaluate("localStorage.getItem('gpt2lab.settings')"))
    assert {name: stored[name] for name in OWN} == OWN
