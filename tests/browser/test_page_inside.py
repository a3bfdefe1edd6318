"""The page looks inside the model at a token: the logit lens, attention, contributions, and the nearest tokens."""

from __future__ import annotations

import re

import pytest

from gpt2lab import Tokenizer

from .playground import PROMPT, visit, write

pytestmark = pytest.mark.slow
TOKENIZER = Tokenizer.gpt2()


def opened(page, place=4, **settings):
    """Write a text, choose a token of it, and open the panel."""
    write(visit(page, **settings))
    page.locator("#tokens .drawn").nth(place).click()
    page.locator("#tokens .pinned").wait_for()
    page.locator("#inside > summary").click()
    return ready(page)


def ready(page):
    page.locator("#inside-body[aria-busy=false]").wait_for()
    return page


def label(id):
    return TOKENIZER.decode([id]).replace(" ", "␣").replace("\n", "↵")


def answered(page, place=4, path="inside", **body):
    """Return the ids before a place of the text, and the server's answer for it."""
    ids = page.evaluate(
        "() => import('/page/settings.js').then(async ({ settings }) => {"
        " const { tokenize } = await import('/page/api.js');"
        " return tokenize('tales', settings.get().prompt); })"
    )
    drawn = page.request.post(
        "/v1/completions", data={"prompt": PROMPT, "max_tokens": 24, "seed": 7, "return_token_ids": True}
    ).json()["choices"][0]["token_ids"]
    tokens = [*ids, *drawn[:place]]
    answer = page.request.post(f"/playground/{path}", data={"tokens": tokens, "token": drawn[place], **body})
    assert answer.ok, answer.text()
    return tokens, answer.json()


def test_a_closed_panel_asks_for_nothing(page):
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    write(visit(page))
    page.locator("#tokens .drawn").nth(4).click()
    page.locator("#tokens .pinned").wait_for()
    page.wait_for_timeout(400)
    assert [
        url for url in requests if re.search(r"playground/inside|inside_(panel|lens|attention|parts|api)", url)
    ] == []


def test_the_lens_has_a_row_for_each_layer_and_ends_with_the_answer(page):
    opened(page)
    _, expected = answered(page)
    rows = page.locator("#inside-lens tbody tr")
    n_layer = len(expected["lens"]) - 1
    names = ["none", *map(str, range(n_layer - 1)), f"{n_layer - 1}, the last"]
    assert rows.locator("th").all_text_contents() == names
    assert rows.locator("code").all_text_contents() == [label(each["top"][0][0]) for each in expected["lens"]]
    assert rows.locator("td:last-child").all_text_contents() == [f"{each['rank']:,}" for each in expected["lens"]]
    assert page.locator("#inside-lens thead th").nth(2).text_content() == label(expected["token"])


def test_the_lens_says_what_its_numbers_and_bold_rows_are(page):
    place = 3
    opened(page, place)
    _, expected = answered(page, place)
    caption = page.locator("#inside-lens caption").text_content()
    assert f"follows {label(expected['token'])}: its probability, and its rank" in caption and "bold" in caption
    rows = page.locator("#inside-lens tbody tr")
    bold = rows.evaluate_all("(all) => all.map((row) => Number(getComputedStyle(row.cells[1]).fontWeight) > 500)")
    assert bold == [each["rank"] == 1 for each in expected["lens"]]
    assert any(bold) and not all(bold)


def test_attention_starts_with_the_sharpest_head_and_shows_whom_it_reads(page):
    opened(page)
    tokens, expected = answered(page)
    _, layer, head = max(
        (max(weights[1:-1]), -layer, -head)
        for layer, heads in enumerate(expected["attention"])
        for head, weights in enumerate(heads)
    )
    assert page.input_value("#inside-attention select >> nth=0") == str(-layer)
    assert page.input_value("#inside-attention select >> nth=1") == str(-head)
    weights = expected["attention"][-layer][-head]
    assert page.locator(".arcs .token-label").all_text_contents() == [label(id) for id in tokens]
    assert page.locator(".arcs .weight").all_text_contents() == [f"{100 * each:.1f} %" for each in weights]
    assert page.locator(".arcs path").count() == sum(each >= 0.005 for each in weights[:-1])
    assert (
        f"reads {label(tokens[weights.index(max(weights))])} most"
        in page.locator("#inside-attention [role=status]").text_content()
    )


def test_a_head_that_is_chosen_stays_chosen_at_other_tokens(page):
    opened(page)
    layer, head = (page.locator("#inside-attention select").nth(at) for at in (0, 1))
    layer.select_option("5")
    head.select_option("3")
    assert "head 3 of layer 5 reads" in page.locator("#inside-attention [role=status]").text_content()
    page.locator("#tokens .drawn").nth(8).click()
    tokens, _ = answered(page, 8)
    page.locator("#inside-place", has_text=f"The model reads {label(tokens[-1])}").wait_for()
    ready(page)
    assert (layer.input_value(), head.input_value()) == ("5", "3")


def test_the_mean_of_a_layers_heads_can_be_looked_at(page):
    opened(page)
    tokens, expected = answered(page)
    layer, head = (page.locator("#inside-attention select").nth(at) for at in (0, 1))
    layer.select_option("2")
    head.select_option("all")
    heads = expected["attention"][2]
    found = [float(each.removesuffix(" %")) for each in page.locator(".arcs .weight").all_text_contents()]
    assert found == pytest.approx([100 * sum(each) / len(heads) for each in zip(*heads, strict=True)], abs=0.051)
    said = page.locator("#inside-attention [role=status]")
    for number, heads in enumerate(expected["attention"]):
        layer.select_option(str(number))
        sums = [sum(each) for each in zip(*heads, strict=True)]
        most = sums.index(max(sums))
        read = "the last token" if most == len(tokens) - 1 else label(tokens[most])
        assert f"the heads of layer {number} on average read {read} most" in said.text_content()
    layer.select_option("2")
    page.get_by_role("button", name="Change these heads").click()
    assert page.locator("[data-part='attention:2']").first.get_attribute("aria-pressed") == "true"
    page.locator("#inside-what-if", has_text="Without the attention of layer 2").wait_for()


def test_a_head_that_matters_can_be_looked_at(page):
    opened(page)
    _, expected = answered(page)
    heads = [
        (abs(value), layer, head)
        for layer, row in enumerate(expected["contributions"]["heads"])
        for head, value in enumerate(row)
    ]
    _, layer, head = max(heads)
    first = page.locator(".heads-that-matter button").first
    assert first.text_content() == f"layer {layer}, head {head}"
    first.focus()
    page.keyboard.press("Enter")
    assert first.get_attribute("aria-pressed") == "true"
    assert page.input_value("#inside-attention select >> nth=0") == str(layer)


def test_contributions_add_up_to_the_logit(page):
    opened(page)
    _, expected = answered(page)
    parts = expected["contributions"]
    rows = page.locator("#inside-parts tbody tr")
    assert rows.locator("th").all_text_contents() == [
        "embedding",
        "position",
        *(f"layer {layer}" for layer in range(len(parts["mlp"]))),
        "the rest",
    ]
    shown = [float(each.replace("−", "-")) for each in page.locator("#inside-parts tbody .number").all_text_contents()]
    assert sum(shown) == pytest.approx(parts["logit"], abs=0.005 * len(shown))
    total = page.locator("#inside-parts tfoot .number").text_content()
    assert float(total.replace("−", "-")) == pytest.approx(parts["logit"], abs=0.005)
    signs = page.locator("#inside-parts tbody .signed").evaluate_all(
        "(all) => all.map((one) => one.classList.contains('minus'))"
    )
    assert signs == [each < 0 for each in shown] or 0 in shown


def test_another_tokens_logit_can_be_explained(page):
    opened(page)
    likeliest = page.locator("#inside-token option").nth(1)
    id = int(likeliest.get_attribute("value"))
    page.select_option("#inside-token", str(id))
    page.locator("#inside-lens thead th", has_text=label(id)).wait_for()
    _, expected = answered(page, token=id)
    assert (
        page.locator("#inside-lens tbody tr:last-child td:last-child").text_content()
        == f"{expected['lens'][-1]['rank']}"
    )
    assert page.locator("#inside-near code").all_text_contents() == [label(each) for each, _ in expected["neighbours"]]


def test_the_place_after_the_end_has_an_inside(page):
    opened(page)
    page.locator("#tokens .next").click()
    page.locator("#inside-place", has_text=re.compile("predicts the token after it.$")).wait_for()
    ready(page)
    assert page.locator("#inside-lens tbody tr:last-child td:last-child").text_content() == "1"


def test_a_long_text_gets_a_sentence_and_no_request(page):
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    visit(page, prompt="a" + " a" * 520)
    page.locator("#inside > summary").click()
    page.locator("#tokens .next").click()
    page.locator("#inside-note", has_text="a look inside takes at most 512").wait_for()
    assert page.locator("#inside-body").is_hidden()
    assert [url for url in requests if "playground/inside" in url] == []


def test_many_tokens_are_summed_up_between_those_that_matter(evaluate):
    weights = [0.2, *[0.001] * 50, 0.3, *[0.002] * 40, 0.1]
    lines = evaluate("inside_attention.js", "(m, weights) => m.linesOf(weights)", weights)
    assert len([each for each in lines if "at" in each]) == 16
    assert {0, 51, 92} <= {each.get("at") for each in lines}
    assert sum(each.get("skipped", 1) for each in lines) == len(weights)
    assert sum(each["weight"] for each in lines) == pytest.approx(sum(weights))


def test_the_choice_of_a_head_is_reached_by_keyboard(page):
    opened(page)
    page.locator("#inside > summary").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.id") == "inside-token"
    page.locator("#inside-attention select").first.focus()
    before = page.locator("#inside-attention [role=status]").text_content()
    page.keyboard.press("ArrowDown")
    assert page.locator("#inside-attention [role=status]").text_content() != before


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1920, "light"), (1920, "dark")])
def test_the_open_panel_is_accessible(new_page, width, scheme):
    from .test_accessibility import settled, violations

    page = new_page(width=width, color_scheme=scheme, reduced_motion="reduce")
    opened(page)
    page.locator("#inside-parts .part").nth(3).click()
    page.locator("#inside-what-if .effect").wait_for()
    page.keyboard.press("Escape")
    settled(page)
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_bars_and_arcs_are_seen_in_forced_colours(new_page):
    page = new_page(forced_colors="active")
    opened(page)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for part in ("#inside-parts .bar", ".arcs .bar", "#inside-lens .bar"):
        assert page.locator(part).first.evaluate("(bar) => getComputedStyle(bar).backgroundColor") != paper
    assert page.locator(".arcs path").first.evaluate("(arc) => getComputedStyle(arc).stroke") != paper
