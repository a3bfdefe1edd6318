"""A text is written on the page as the API writes it, with its figures; the page reports problems in plain words."""

from __future__ import annotations

import json
import re

import pytest

from .playground import PROMPT, asked, ended, text, visit, write

pytestmark = pytest.mark.slow


def test_a_text_is_the_api_s_for_the_same_seed(page):
    write(visit(page, seed=11))
    answer = asked(page, prompt=PROMPT, max_tokens=24, seed=11)
    assert text(page) == PROMPT + answer["choices"][0]["text"]


def test_every_drawn_token_has_the_tint_of_its_probability(page):
    write(visit(page))
    answer = asked(page, prompt=PROMPT, max_tokens=24, seed=7, logprobs=0)
    spans = page.locator("#tokens .drawn")
    classes = [spans.nth(n).get_attribute("class") for n in range(spans.count())]
    edges = (0.001, 0.01, 0.1, 0.5)
    logprobs = answer["choices"][0]["logprobs"]["token_logprobs"]
    levels = [sum(2.718281828459045**logprob >= edge for edge in edges) for logprob in logprobs]
    assert [int(re.search(r"\bp(\d)", each)[1]) for each in classes] == levels


def test_speed_first_token_and_time_split_are_in_sight(page):
    write(visit(page))
    page.locator("[data-figure=times] .drawing").wait_for()
    assert page.locator("[data-figure=tokens]").text_content() == "24"
    assert float(page.locator("[data-figure=rate]").text_content()) > 0
    assert re.fullmatch(r"[\d.]+ m?s", page.locator("[data-figure=first]").text_content())
    times = page.locator("[data-figure=times]").text_content()
    assert re.search(r"waiting its turn [\d.]+ m?s.*reading the prompt [\d.]+ m?s.*drawing [\d.]+ m?s", times)


def test_ctrl_enter_writes_and_escape_stops(page):
    visit(page, max_tokens=400)
    page.focus("#prompt")
    page.keyboard.press("Control+Enter")
    page.locator("#stop[aria-disabled=false]").wait_for()
    page.locator("#tokens .drawn").nth(3).wait_for()
    page.keyboard.press("Escape")
    ended(page)
    assert page.locator("#status").text_content() == "Stopped."
    assert 3 < page.locator("#tokens .drawn").count() < 400


def test_a_text_may_begin_from_nothing_and_go_on(page):
    write(visit(page, prompt=""))
    answer = asked(page, prompt="", max_tokens=24, seed=7)
    assert text(page) == answer["choices"][0]["text"]
    page.click("#continue")
    page.locator(".tree .label", has_text="continued").wait_for()
    ended(page)
    assert len(text(page)) > len(answer["choices"][0]["text"])


def test_settings_and_prompt_survive_a_reload(page):
    visit(page)
    page.fill("#prompt", "The old king")
    page.evaluate("() => import('/page/settings.js').then(({ settings }) => settings.set({ temperature: 0.5 }))")
    page.reload()
    page.locator("html[data-ready]").wait_for()
    assert page.input_value("#prompt") == "The old king"
    stored = page.evaluate("() => import('/page/settings.js').then(({ settings }) => settings.get())")
    assert (stored["temperature"], stored["seed"]) == (0.5, 7)


def test_the_prompt_s_tokens_and_what_comes_next_are_shown_before_anything_is_written(page):
    visit(page, prompt="The king")
    page.locator("#tokens .given").nth(1).wait_for()
    page.fill("#prompt", "The king and the queen")
    page.locator("#tokens .given").nth(4).wait_for()
    assert page.locator("#teach").is_visible()
    page.locator(".alternative .left", has_text="%").first.wait_for()


def test_a_busy_server_is_asked_again(page, complaints):
    complaints.forgive("status of 429")
    busy = [True]

    def refuse_once(route):
        if not busy.pop() if busy else True:
            return route.continue_()
        body = {"error": {"message": "too many", "type": "rate_limit_error", "param": None, "code": "queue_full"}}
        return route.fulfill(status=429, headers={"Retry-After": "0.2"}, json=body)

    page.route("**/v1/completions", refuse_once)
    write(visit(page))
    assert page.locator("#tokens .drawn").count() == 24


def test_a_server_that_is_gone_is_named_and_asked_again_when_told(page, complaints):
    complaints.forgive("net::ERR_")
    visit(page)
    page.locator("#tokens .given").first.wait_for()
    page.route("**/v1/completions", lambda route: route.abort())
    page.click("#run")
    page.locator("[role=alert]", has_text="Is gpt2lab serve still running?").wait_for()
    page.unroute("**/v1/completions")
    page.get_by_role("button", name="Try again").click()
    ended(page)
    assert page.locator("#tokens .drawn").count() == 24
    assert page.locator("[role=alert]").is_hidden()


def test_a_prompt_without_room_after_it_is_refused_in_a_sentence(page):
    visit(page, prompt="again " * 1100)
    page.locator("#tokens .given").nth(1000).wait_for()
    page.click("#run")
    page.locator("[role=alert]", has_text="There is no room left: this model reads at most").wait_for()


def test_a_server_with_keys_asks_for_one_and_keeps_it_for_the_tab(serve, new_page, complaints, tmp_path_factory):
    complaints.forgive("status of 401")
    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys.write_text("open-sesame\n")
    page = new_page(serve("--api_key_file", str(keys)))
    page.goto("/")
    page.get_by_role("textbox", name="API key").fill("wrong")
    page.get_by_role("button", name="Use this key").click()
    page.get_by_role("heading", name="The server does not accept this key.").wait_for()
    page.get_by_role("textbox", name="API key").fill("open-sesame")
    page.get_by_role("button", name="Use this key").click()
    page.locator("html[data-ready]").wait_for()
    page.locator("#tokens .given").first.wait_for()
    assert page.evaluate("() => sessionStorage['gpt2lab.key']") == "open-sesame"
    assert "open-sesame" not in json.dumps(page.evaluate("() => ({ ...localStorage })"))


def test_the_seed_of_a_text_can_be_kept(page):
    write(visit(page, seed=None))
    seed = page.locator("[data-figure=seed]").text_content()
    page.get_by_role("button", name=seed).click()
    assert (
        page.evaluate("() => import('/page/settings.js').then(({ settings }) => String(settings.get().seed))") == seed
    )


def test_the_end_of_text_is_a_token_that_was_drawn_and_can_be_looked_into(page):
    visit(page)
    prompt = "and they lived happily ever after."
    bodies = ({"prompt": prompt, "max_tokens": 24, "seed": seed} for seed in range(50))
    seed = next(body["seed"] for body in bodies if asked(page, **body)["choices"][0]["finish_reason"] == "stop")
    write(visit(page, prompt=prompt, seed=seed))
    assert page.locator("#status").text_content().endswith("the model ended its text.")
    page.locator("#tokens .drawn.end").click()
    page.locator('.alternative.own[data-id="50256"]').wait_for()


def test_another_model_chosen_reads_the_prompt(pair_server, new_page):
    page = visit(new_page(pair_server))
    page.locator("#tokens .given").first.wait_for()
    page.select_option("#model", "tiny")
    page.locator("#model-facts", has_text="context 64").wait_for()
    write(page)
    assert page.locator("#tokens .drawn").count() == 24


def test_what_the_server_has_changed_meanwhile_is_told(page):
    visit(page)
    page.locator("#tokens .given").first.wait_for()
    fingerprint = page.request.get("/v1/models").json()["data"][0]["gpt2lab"]["fingerprint"]

    def other(route):
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.text().replace(fingerprint, "fp_other"))

    page.route("**/v1/completions", other)
    write(page)
    page.locator("[role=alert]", has_text="model of this name has changed").wait_for()
