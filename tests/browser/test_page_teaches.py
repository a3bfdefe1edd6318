"""The page explains itself: an example at load, the prompt as tokens, examples, definitions, following."""

from __future__ import annotations

import re

import pytest

from .playground import PROMPT, asked, change, ended, text, visit, write

pytestmark = pytest.mark.slow


def alive(page):
    """Wait for the example that is drawn when the page opens."""
    page.locator("#tokens .drawn").nth(29).wait_for()
    page.locator("#tokens .next:not(.drawing)").wait_for()
    return page


def test_thirty_tokens_are_there_before_anybody_types(page):
    page.goto("/")
    alive(page)
    answer = asked(page, prompt=PROMPT, max_tokens=30, seed=1)
    assert text(page) == PROMPT + answer["choices"][0]["text"]
    assert page.locator("[role=treeitem]").count() == 0
    assert "fixed seed" in page.locator("#teach").text_content()


def test_the_prompt_is_shown_as_tokens_with_their_surprisals(page):
    visit(page, prompt="The old king")
    numbers = page.locator(".prompt-list .surprisal")
    page.locator(".prompt-list li.p0, .prompt-list li[class]").first.wait_for()
    assert page.locator(".prompt-list code").all_text_contents() == ["The", "␣old", "␣king"]
    body = {"prompt": "The old king", "max_tokens": 0, "echo": True, "logprobs": 0}
    logprobs = asked(page, **body)["choices"][0]["logprobs"]["token_logprobs"]
    assert numbers.all_text_contents() == ["–", *(f"{-value:.1f}" for value in logprobs[1:])]
    assert page.locator(".prompt-list .id").first.is_hidden()
    page.check("#prompt-ids")
    assert page.locator(".prompt-list .id").first.text_content() == "464"
    assert page.locator(".prompt-list .id").first.is_visible()


def test_a_prompt_of_one_token_says_that_it_has_no_surprisal(page, expect):
    visit(page, prompt="The")
    expect(page.locator(".prompt-list .surprisal")).to_have_text(["–"])


def test_a_trailing_space_gets_a_hint_and_can_be_removed(page):
    visit(page, prompt="The king ")
    page.locator("#space-hint").wait_for()
    page.click("#remove-space")
    page.locator("#space-hint").wait_for(state="hidden")
    assert page.input_value("#prompt") == "The king"


def test_there_are_six_examples_with_notes(evaluate):
    examples = evaluate("examples.js", "(m) => m.EXAMPLES")
    assert len({example["title"] for example in examples}) == 6
    assert all(len(example["note"].split()) <= 60 for example in examples)


def test_an_example_writes_its_texts_and_says_what_to_see(page):
    visit(page)
    page.get_by_role("button", name="Two names, two stories").click()
    page.locator("#lesson", has_text="Both texts have the same seed").wait_for()
    page.locator("[role=treeitem]").nth(1).wait_for()
    ended(page)
    labels = page.locator(".tree .label").all_text_contents()
    assert labels == ["Hi! My name is Isamu!", "Hi! My name is John!"]
    assert "temperature 0.5, seed 1." in page.locator("#made").text_content()


def test_every_term_on_the_page_has_a_definition(page):
    visit(page)
    terms = page.evaluate("() => [...document.querySelectorAll('[data-term]')].map(({ dataset }) => dataset.term)")
    glossary = page.evaluate("import('/page/glossary.js').then((m) => m.GLOSSARY)")
    assert {"logit", "nat", "entropy", "surprisal", "top_k", "temperature", "seed"} <= set(terms) <= set(glossary)
    assert "perplexity" in glossary


def test_units_and_ids_have_their_definitions_beside_them(page, expect):
    visit(page)
    page.locator("#stage-table[aria-busy=false]").wait_for()
    for word, definition in (("nats", "The unit of surprisal"), ("Entropies", "expected surprisal")):
        page.locator("#stage-table").get_by_role("button", name=word).click()
        expect(page.locator("#definition")).to_contain_text(definition)
    page.locator("#tokens .drawn").first.click()
    page.locator("#stage-table").get_by_role("button", name="ids").click()
    expect(page.locator("#definition")).to_contain_text("464")
    expect(page.locator(".prompt-options")).to_contain_text("surprisals, in nats")


def test_the_random_number_of_a_token_is_called_by_its_name(page, expect):
    alive(visit(page))
    expect(page.locator("#alternatives")).to_contain_text(re.compile(r"random number 0\.\d{4}"))


def test_a_sentence_quotes_punctuation_in_a_box(page, expect):
    alive(visit(page)).locator("#tokens .next").hover()
    expect(page.locator("#alternatives .hint code")).to_have_css("border-top-style", "solid")


def test_a_definition_opens_and_closes_by_keyboard(page):
    visit(page)
    page.locator("[data-term=logit]").focus()
    page.keyboard.press("Enter")
    box = page.locator("#definition")
    box.wait_for()
    assert "2.72 times" in box.text_content()
    assert page.locator("[data-term=logit]").get_attribute("aria-expanded") == "true"
    page.keyboard.press("Escape")
    assert box.is_hidden()
    assert page.evaluate("() => document.activeElement.dataset.term") == "logit"


def test_the_glossary_has_every_definition(page):
    page.goto("/glossary#logit")
    page.locator("#terms dt").first.wait_for()
    glossary = page.evaluate("import('/page/glossary.js').then((m) => m.GLOSSARY)")
    assert sorted(page.locator("#terms dt").all_text_contents()) == sorted(each["title"] for each in glossary.values())
    assert page.locator("#logit dd").text_content() == glossary["logit"]["text"]


def test_the_example_follows_a_slider_with_the_same_seed(page):
    page.goto("/")
    alive(page)
    ids = "() => [...document.querySelectorAll('#tokens .drawn')].map(({ textContent }) => textContent)"
    before = page.evaluate(ids)
    change(page, min_p=0.001)
    page.locator("#unfollow").wait_for()
    page.locator("#tokens .next:not(.drawing)").wait_for()
    after = page.evaluate(ids)
    answer = asked(page, prompt=PROMPT, max_tokens=30, seed=1, min_p=0.001)
    assert text(page) == PROMPT + answer["choices"][0]["text"]
    same = next((at for at, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), len(after))
    assert page.locator("#tokens .stays").count() == same
    assert page.locator("#tokens .changed").count() == len(after) - same
    page.click("#unfollow")
    page.locator("#tokens .stays").first.wait_for(state="detached")
    assert page.evaluate(ids) == before


def test_a_text_of_the_user_follows_only_if_that_is_wanted(page):
    write(visit(page))
    before = text(page)
    change(page, temperature=0)
    page.wait_for_timeout(500)
    assert text(page) == before
    change(page, temperature=1)
    page.check("#follow")
    change(page, temperature=0)
    page.locator("#keep").wait_for()
    page.locator("#tokens .next:not(.drawing)").wait_for()
    page.click("#keep")
    page.locator("[role=treeitem]").nth(1).wait_for()
    assert text(page) == PROMPT + asked(page, prompt=PROMPT, max_tokens=24, temperature=0)["choices"][0]["text"]


@pytest.mark.parametrize("width", [390, 1280])
def test_from_logits_to_the_draw_is_above_the_tree(new_page, width):
    page = new_page(width=width)
    visit(page)
    stages, tree = (page.locator(f"section.{name}").bounding_box() for name in ("stages", "branches"))
    assert stages["y"] + stages["height"] <= tree["y"]


def test_on_a_phone_bars_and_slider_are_on_one_screen(new_page):
    page = new_page(width=390, height=844, has_touch=True)
    write(visit(page))
    page.locator("#tokens .drawn").nth(4).tap()
    page.locator("#inspector.open").wait_for()
    slider = page.locator("#sheet-controls [data-setting=temperature][type=range]").bounding_box()
    bar = page.locator(".alternative").nth(2).bounding_box()
    assert 0 < slider["y"] < bar["y"] < 844
    assert page.evaluate("document.documentElement.scrollWidth") == 390
