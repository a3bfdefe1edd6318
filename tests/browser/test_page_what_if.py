"""What the page says of changes inside the model: parts that are switched off, or do what they do in another text."""

from __future__ import annotations

import pytest

from gpt2lab.weights.find import open_checkpoint

from .test_page_inside import TOKENIZER, answered, label, opened, ready

pytestmark = pytest.mark.slow
LAYER = open_checkpoint("tales").config.n_layer // 4  # where the page steers unless told


def part(page, name):
    return page.locator(f"#inside-body .part[data-part='{name}']").first


def effect(page, words):
    """Wait for the effect of a change, named by ``words``."""
    page.locator(".effect-said", has_text=words).wait_for()
    page.locator("#inside-what-if [aria-busy=false] .effect").wait_for()
    return page.locator(".effect-said").text_content()


def shown(page, column):
    """Return the likeliest tokens of a column and its text."""
    host = page.locator(".effect-column").nth(column)
    return host.locator(".token-label").all_text_contents(), host.locator(".greedy").text_content()


def test_an_mlp_that_is_switched_off_changes_what_the_server_says(page):
    opened(page)
    part(page, "mlp:2").click()
    said = effect(page, "Without the MLP of layer 2: the probability of")
    _, expected = answered(page, path="patch", mlps=[2], length=30)
    for column, name in enumerate(("before", "after")):
        labels, text = shown(page, column)
        assert labels == [label(id) for id, _ in expected[name]["top"]]
        assert text == TOKENIZER.decode(expected[name]["tokens"])
    assert f"differ by {expected['kl']:.3f} nats" in said
    assert part(page, "mlp:2").get_attribute("aria-pressed") == "true"


def test_what_differs_in_the_text_is_marked_from_the_first_token(page):
    opened(page)
    part(page, "mlp:0").click()
    effect(page, "Without the MLP of layer 0")
    _, expected = answered(page, path="patch", mlps=[0], length=30)
    before, after = (expected[name]["tokens"] for name in ("before", "after"))
    first = next(at for at, (one, other) in enumerate(zip(before, after, strict=False)) if one != other)
    marks = page.locator(".greedy mark").all_text_contents()
    assert marks == [TOKENIZER.decode(before[first:]), TOKENIZER.decode(after[first:])]


def test_a_copy_from_the_text_itself_changes_nothing(page):
    opened(page)
    part(page, "attention:1").click()
    page.get_by_role("button", name="This text itself").click()
    said = effect(page, "With the attention of layer 1 as in the other text")
    assert "nothing changes. All numbers are the same, to the bit." in said
    assert page.locator(".greedy mark").count() == 0


def test_activations_come_from_the_text_that_is_typed(page):
    opened(page)
    part(page, "mlp:0").click()
    page.get_by_label("Copy from another text").fill("The king of the sea")
    said = effect(page, "With the MLP of layer 0 as in the other text")
    source = TOKENIZER.encode("The king of the sea")
    _, expected = answered(page, path="patch", mlps=[0], source=source, length=30)
    assert f"differ by {expected['kl']:.3f} nats" in said
    assert shown(page, 1)[1] == TOKENIZER.decode(expected["after"]["tokens"])


def test_a_head_is_part_of_its_layers_attention(page):
    opened(page)
    page.locator("#inside-attention select").nth(0).select_option("2")
    page.locator("#inside-attention select").nth(1).select_option("1")
    page.get_by_role("button", name="Change this head").click()
    effect(page, "Without head 1 of layer 2")
    assert part(page, "attention:2").get_attribute("aria-pressed") == "mixed"
    part(page, "attention:2").click()
    effect(page, "Without the attention of layer 2")
    assert page.get_by_role("button", name="Change this head").get_attribute("aria-pressed") == "true"


def test_a_part_that_is_changed_back_leaves_nothing_to_show(page):
    opened(page)
    button = part(page, "mlp:3")
    button.focus()
    page.keyboard.press("Space")
    effect(page, "Without the MLP of layer 3")
    assert button.evaluate("(button) => button === document.activeElement")
    page.keyboard.press("Space")
    page.locator(".effect-said", has_text="Nothing is changed").wait_for()
    assert page.locator(".effect").count() == 0


def test_changes_stay_at_other_tokens_until_they_are_undone(page):
    opened(page)
    part(page, "mlp:3").click()
    effect(page, "Without the MLP of layer 3")
    page.locator("#tokens .drawn").nth(9).click()
    tokens, expected = answered(page, 9, path="patch", mlps=[3], length=30)
    page.locator("#inside-place", has_text=f"The model reads {label(tokens[-1])}").wait_for()
    effect(ready(page), f"the probability of {label(expected['token'])}")
    assert part(page, "mlp:3").get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="Undo all").click()
    page.locator(".effect-said", has_text="Nothing is changed").wait_for()
    assert part(page, "mlp:3").get_attribute("aria-pressed") == "false"


def test_parts_are_named_in_words(evaluate):
    script = """(m, parts) => {
        const changes = new m.Changes();
        changes.shape(4);
        for (const part of parts) changes.toggle(part);
        return [changes.words(), changes.body()];
    }"""
    words, body = evaluate("inside_changes.js", script, ["mlp:6", "head:3:2", "head:3:0", "attention:5", "mlp:1"])
    assert words == "heads 0 and 2 of layer 3, the attention of layer 5 and the MLPs of layers 1 and 6"
    assert sorted(body["heads"]) == [[3, 0], [3, 2], [5, 0], [5, 1], [5, 2], [5, 3]]
    assert body["mlps"] == [6, 1]


def test_a_request_that_is_refused_is_explained(page, complaints):
    complaints.forgive("status of 400")
    opened(page)
    part(page, "mlp:0").click()
    effect(page, "Without the MLP of layer 0")
    page.get_by_label("Copy from another text").fill("a " * 600)
    page.locator(".effect-said", has_text="maximum context length is 512 tokens").wait_for()
    assert page.locator(".effect").count() == 0


def steered(page, scale):
    """Set the scale of steering and wait for its effect."""
    field = page.get_by_label("Scale", exact=True)
    field.fill(str(scale))
    return effect(
        page, f"With {str(scale).replace('-', '−')} × the direction from “␣sad” to “␣happy” before layer {LAYER}"
    )


def steering(scale):
    positive, negative = (TOKENIZER.encode(text) for text in (" happy", " sad"))
    return {"layer": LAYER, "positive": positive, "negative": negative, "scale": scale}


def test_the_text_follows_the_scale_of_a_direction(page):
    opened(page)
    for scale in (1.5, -1.5):
        steered(page, scale)
        _, expected = answered(page, path="patch", steer=steering(scale), length=30)
        assert shown(page, 1)[1] == TOKENIZER.decode(expected["after"]["tokens"])


def test_a_slider_that_moves_quickly_asks_once_at_a_time(page):
    opened(page)
    running, most = [], []
    page.on("request", lambda request: "patch" in request.url and (running.append(request), most.append(len(running))))
    page.on("requestfinished", lambda request: "patch" in request.url and running.remove(request))
    slider = page.get_by_label("Scale, slider")
    slider.focus()
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    effect(page, "With 1.2 × the direction")
    assert max(most) == 1
    assert len(most) < 12


def test_a_part_that_is_off_and_a_direction_go_together(page):
    opened(page)
    part(page, "mlp:1").click()
    effect(page, "Without the MLP of layer 1")
    page.get_by_label("Scale", exact=True).fill("1")
    effect(page, "Without the MLP of layer 1, and with 1 × the direction")
    _, expected = answered(page, path="patch", mlps=[1], steer=steering(1), length=30)
    assert shown(page, 1)[1] == TOKENIZER.decode(expected["after"]["tokens"])


def test_a_scale_of_zero_changes_nothing(page):
    opened(page)
    steered(page, 1)
    page.get_by_label("Scale", exact=True).fill("0")
    page.locator(".effect-said", has_text="Nothing is changed").wait_for()
    assert page.locator(".effect").count() == 0
