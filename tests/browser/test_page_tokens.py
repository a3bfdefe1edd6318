"""Tokens show the alternatives in their place when pointed at; a choice branches off."""

from __future__ import annotations

import pytest

from .playground import PROMPT, alternatives, asked, branch, ended, text, visit, write

pytestmark = pytest.mark.slow


def ids_of(page, **more):
    """Return the ids and likeliest ids of the text that the page writes first."""
    answer = asked(page, prompt=PROMPT, max_tokens=24, seed=7, logprobs=20, return_tokens_as_token_ids=True, **more)
    logprobs = answer["choices"][0]["logprobs"]
    ids = [int(name.removeprefix("token_id:")) for name in logprobs["tokens"]]
    tops = [
        sorted(((-v, int(k.removeprefix("token_id:"))) for k, v in top.items())) for top in logprobs["top_logprobs"]
    ]
    return ids, [[id for _, id in top] for top in tops]


def test_a_token_pointed_at_shows_its_likeliest_alternatives(page):
    write(visit(page))
    ids, tops = ids_of(page)
    page.locator("#tokens .drawn").nth(5).hover()
    page.locator(f'.alternative.own[data-id="{ids[5]}"]').wait_for()
    buttons = alternatives(page)
    shown = [int(buttons.nth(n).get_attribute("data-id")) for n in range(10)]
    assert shown == tops[5][:10]


STALE = """async (m) => {
  const host = document.createElement("div");
  document.body.append(host);
  const rested = [];
  const view = new m.TokenView(host, { rest: (place) => rested.push(place) });
  const tree = { origin: { endOfText: null } };
  const token = { id: 0, logprob: -1, kind: "drawn", run: { tree } };
  const run = (n) => ({ tree, drawn: [], length: n, busy: false, at: (place) => (place < n ? token : undefined) });
  view.show(run(9), ["a"]);
  host.children[7].dispatchEvent(new PointerEvent("pointerover", { bubbles: true, pointerType: "mouse" }));
  view.show(run(2), ["a"]);
  await new Promise((later) => setTimeout(later, 200));  // the view waits for 70 ms
  return rested;
}"""


def test_a_token_is_not_pointed_at_in_the_text_that_replaces_its_own(evaluate):
    assert evaluate("tokens.js", STALE) == []


def test_what_a_setting_cuts_is_told_at_each_alternative_without_asking_again(page):
    write(visit(page))
    page.locator("#tokens .drawn").nth(5).click()
    alternatives(page)
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.evaluate("() => import('/page/settings.js').then(({ settings }) => settings.set({ top_k: 3 }))")
    page.locator(".alternative.cut").first.wait_for()
    cuts = page.locator(".alternative .left").all_text_contents()
    assert [cut == "cut: top-k" for cut in cuts[:10]] == [False] * 3 + [True] * 7
    assert "cut by top-k" in page.locator(".alternative").nth(4).get_attribute("aria-label")
    assert not [url for url in requests if "settings.js" not in url]


def test_a_pinned_token_stays_while_the_pointer_wanders(page):
    write(visit(page))
    page.locator("#tokens .drawn").nth(5).click()
    page.locator("#tokens .drawn.pinned").wait_for()
    page.locator("#tokens .drawn").nth(9).hover()
    page.wait_for_timeout(150)
    assert "pinned" in page.locator("#tokens .drawn").nth(5).get_attribute("class")
    page.locator("#tokens .drawn").nth(5).click()
    page.locator("#tokens .drawn").nth(9).hover()
    page.locator("#tokens .drawn.here").nth(0).wait_for()
    assert "pinned" not in page.locator("#tokens .drawn").nth(5).get_attribute("class")


def test_an_alternative_chosen_is_a_branch_that_the_api_would_write(page):
    write(visit(page))
    ids, tops = ids_of(page)
    other = [id for id in tops[5] if id != ids[5]][1]
    branch(page, 5, 1)
    given = page.request.post("/tokenize", data={"prompt": PROMPT}).json()["tokens"]
    prompt = [*given, *ids[:5], other]
    answer = asked(page, prompt=prompt, max_tokens=24, seed=7)
    said = page.request.post("/detokenize", data={"tokens": prompt}).json()["prompt"]
    assert text(page) == said + answer["choices"][0]["text"]
    assert page.locator("#tokens .chosen").count() == 1
    assert page.locator("[role=treeitem]").count() == 2


def test_back_and_forward_go_between_texts(page):
    write(visit(page))
    first = text(page)
    branch(page, 2, 0)
    second = text(page)
    page.click("#back")
    page.locator("#forth[aria-disabled=false]").wait_for()
    assert text(page) == first != second
    page.click("#forth")
    page.locator("#forth[aria-disabled=true]").wait_for()
    assert text(page) == second


def test_the_same_choice_again_opens_the_branch_that_is_there(page):
    write(visit(page))
    branch(page, 2, 0)
    page.click("#back")
    page.locator("#forth[aria-disabled=false]").wait_for()
    page.locator("#tokens .drawn").nth(2).click()
    alternatives(page)
    page.locator(".alternative:not(.own)").nth(0).click()
    page.locator("#tokens .chosen").wait_for()
    assert page.locator("[role=treeitem]").count() == 2


def test_replaying_draws_the_same_tokens(page):
    write(visit(page))
    before = text(page)
    page.click("#replay")
    page.locator("#status", has_text="The same 24 tokens again.").wait_for()
    assert text(page) == before


def test_another_draw_from_a_place_has_another_seed(page):
    write(visit(page))
    page.locator("#tokens .drawn").nth(3).click()
    page.click("#redraw")
    page.locator(".tree .label", has_text="drawn again, seed").wait_for()
    ended(page)
    assert page.locator("[data-figure=seed]").text_content() != "7"
    assert page.locator("#tokens .inherited").count() == 3


def test_the_arrow_keys_go_through_the_text_with_one_tab_stop(page):
    write(visit(page))
    assert page.locator("#tokens [tabindex='0']").count() == 1
    page.locator("#tokens [tabindex='0']").focus()
    page.keyboard.press("Control+Home")
    place = "() => Number(document.activeElement.dataset.place)"
    assert page.evaluate(place) == 0
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(place) == 2
    page.keyboard.press("Control+End")
    last = page.evaluate(place)
    assert last == page.locator("#tokens [data-place]").count() - 1
    page.keyboard.press("ArrowUp")
    above = page.evaluate(place)
    assert above < last
    page.keyboard.press("ArrowDown")
    assert page.evaluate(place) > above
    assert page.locator("#tokens [tabindex='0']").count() == 1


def test_the_keyboard_alone_reaches_an_alternative_and_branches(page):
    write(visit(page))
    page.locator("#tokens [tabindex='0']").focus()
    page.keyboard.press("Control+Home")
    for _ in range(7):
        page.keyboard.press("ArrowRight")
    assert "%" in page.evaluate("() => document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("Enter")
    alternatives(page)
    page.locator(".alternative:focus").wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    if "own" in page.evaluate("() => document.activeElement.className"):
        page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.locator("#tokens .chosen").wait_for()
    ended(page)
    assert page.evaluate("() => document.activeElement.dataset.place") == "7"


def test_on_a_narrow_screen_a_tap_opens_the_alternatives_and_the_text_fits(new_page):
    page = new_page(width=320, height=640, has_touch=True)
    write(visit(page))
    assert page.locator("#inspector").is_hidden()
    page.locator("#tokens .drawn").nth(4).tap()
    page.locator("#inspector").wait_for()
    alternatives(page)
    page.get_by_role("button", name="Close").click()
    assert page.locator("#inspector").is_hidden()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 320
