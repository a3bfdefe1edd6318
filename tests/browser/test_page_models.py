"""Models that come and go: header and text say whose each is, and a text goes on without its model."""

from __future__ import annotations

import pytest

from .playground import ended, text, visit, write

pytestmark = pytest.mark.slow


def test_a_text_says_which_model_and_settings_made_it(pair_server, new_page):
    page = visit(new_page(pair_server), temperature=1.1, top_k=60)
    write(page)
    made = page.locator("#made")
    assert made.text_content() == "Written by tales, temperature 1.1, top-k 60, seed 7."
    assert page.locator(".tree .by").text_content() == "tales, temperature 1.1, top-k 60, seed 7"
    page.select_option("#model", "tiny")
    page.locator("#made", has_text="The next text will be written by tiny.").wait_for()
    write(page)
    assert made.text_content() == "Written by tiny, temperature 1.1, top-k 60, seed 7."


def test_after_a_restart_with_another_model_the_text_goes_on(pair_server, new_page, complaints):
    complaints.forgive("status of 404")
    page = new_page(pair_server)
    served = ["tales"]
    cards = page.request.get("/v1/models").json()["data"]

    def some(route):
        route.fulfill(json={"object": "list", "data": [card for card in cards if card["id"] in served]})

    def complete(route):
        if route.request.post_data_json["model"] in served:
            return route.continue_()
        body = {"error": {"message": "the model `tales` does not exist", "type": "x", "param": "model", "code": None}}
        return route.fulfill(status=404, json=body)

    page.route("**/v1/models", some)
    page.route("**/v1/completions", complete)
    write(visit(page, max_tokens=8))
    before = text(page)
    served[:] = ["tiny"]
    page.click("#continue")
    page.get_by_role("button", name="Use the server's current models").click()
    page.locator("#model-facts", has_text="context 64").wait_for()
    page.locator("#made", has_text="This server does not have tales: Continue uses tiny.").wait_for()
    page.click("#back")
    page.locator("#continue[aria-disabled=false]").wait_for()
    page.click("#continue")
    page.locator("#made", has_text="Written by tiny").wait_for()
    ended(page)
    assert text(page).startswith(before)
