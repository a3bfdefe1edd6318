"""Two models side by side: the same prompt and seed, and how each rates the other's text."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

import gpt2lab

from .conftest import GOLDEN

pytestmark = pytest.mark.slow  # a browser that clicks through the page

PROMPT = "The king"
LENGTH = 12
SETTINGS = {"prompt": PROMPT, "seed": 3, "max_tokens": LENGTH, "temperature": 0.9, "top_k": 30}


@pytest.fixture
def opened(new_page: Any, pair_server: str) -> Any:
    page = new_page(pair_server)
    page.goto("/")
    page.wait_for_selector("#compare form")
    page.evaluate("(s) => import('/page/settings.js').then((m) => m.settings.set(s))", SETTINGS)
    return page


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {
        name: gpt2lab.load(path, precision="int8") for name, path in (("tales", "tales"), ("tiny", GOLDEN / "tiny"))
    }


def log_softmax(logits: Any) -> np.ndarray:
    shifted = np.asarray(logits, dtype=np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def test_with_one_model_there_is_nothing_to_compare(page):
    page.goto("/")
    page.wait_for_selector("#sweep form")
    assert page.locator("#compare-section").is_hidden()


def test_each_writes_what_it_writes_alone_and_reads_the_other(opened, expect, models):
    opened.locator("#compare button[type=submit]").click()
    expect(opened.locator("#compare [role=status]")).to_have_text("Done: seed 3.")
    parameters = {"length": LENGTH, "temperature": 0.9, "top_k": 30, "seed": 3, "logprobs": True}
    ids = {}
    for name, other in (("tales", "tiny"), ("tiny", "tales")):
        [alone] = models[name].generate([PROMPT], **parameters)
        ids[name] = alone.tokens
        column = opened.locator(f"#compare [data-model={name}]")
        assert column.locator(".sample").text_content() == alone.text
        prompt = models[name].tokenizer.encode(PROMPT)
        rows = log_softmax(models[other].logits([*prompt, *alone.tokens]))[len(prompt) - 1 : -1]
        theirs = rows[np.arange(LENGTH), alone.tokens]
        mean = float(np.mean(np.array(alone.logprobs) - theirs))
        said = column.locator(".judged p").text_content()
        assert float(re.search(r"\((-?[\d.]+) nats\)", said)[1]) == pytest.approx(mean, abs=0.006)
        assert column.locator(".judged tbody tr").count() == 6
    _parting_is_right(opened, models, ids)


def _parting_is_right(page: Any, models: dict[str, Any], ids: dict[str, list[int]]) -> None:
    at = next(place for place, (a, b) in enumerate(zip(ids["tales"], ids["tiny"], strict=True)) if a != b)
    title = page.locator("#compare .parting h3").text_content()
    assert ("first token" in title) if at == 0 else (f"after {at} token" in title)
    prompt = models["tales"].tokenizer.encode(PROMPT)
    p, q = (log_softmax(models[name].logits([*prompt, *ids["tales"][:at]])[-1]) for name in ("tales", "tiny"))
    said = page.locator("#compare .parting .hint").text_content()
    numbers = [float(number) for number in re.findall(r"[\d.]+(?= nats| the other)", said)]
    expected = [float(np.sum(np.exp(a) * (a - b))) for a, b in ((p, q), (q, p))]
    assert numbers == pytest.approx(expected, abs=0.1)
    first = page.locator("#compare .parting tbody tr").first
    likeliest = max(np.exp(p).max(), np.exp(q).max())
    assert first.locator("td").first.text_content().endswith("%")
    assert math.isclose(
        max(float(re.match(r"[\d.]+", text)[0]) for text in first.locator("td").all_text_contents()[:2]),
        100 * likeliest,
        abs_tol=0.3,
    )


def test_a_text_is_no_longer_than_both_have_room_for(opened, expect):
    opened.evaluate("import('/page/settings.js').then((m) => m.settings.set({max_tokens: 500}))")
    opened.locator("#compare button[type=submit]").click()
    expect(opened.locator("#compare [role=status]")).to_have_text("Done: seed 3.")
    assert opened.locator("#compare [data-model=tiny] .sample .t").count() == 64 - 2


def test_a_model_is_not_compared_with_itself(opened, expect):
    for select in opened.locator("#compare select").all():
        select.select_option("tales")
    opened.locator("#compare button[type=submit]").click()
    expect(opened.locator("#compare [role=status]")).to_have_text("Choose two different models.")


def test_models_of_different_vocabularies_are_not_compared(evaluate):
    cards = [{"id": name, "gpt2lab": {"n_vocab": size}} for name, size in (("a", 10), ("b", 20))]
    assert evaluate("compare.js", "(m, cards) => m.comparable(cards)", cards) is False
    assert evaluate("compare.js", "(m, cards) => m.comparable([...cards, cards[0]])", cards) is True
