"""The temperature sweep: its texts are gpt2lab's for the same seed, its figures those of `gpt2lab explore sweep`."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import gpt2lab
from gpt2lab.exploring.figures import figures
from gpt2lab.exploring.reading import Reading

pytestmark = pytest.mark.slow  # a browser that clicks through the page

PROMPT = "The king"
LENGTH = 24


def reading(id: int, logprob: float) -> Reading:
    return Reading(id=id, text="", logprob=logprob, rank=1, entropy=0.0, context=1, alternatives=[])


@pytest.mark.parametrize("sizes", [[], [0], [1], [3, 4, 5], [60, 0, 61]])
def test_figures_are_those_of_python(evaluate, sizes):
    random = np.random.default_rng(4)
    samples = [[(int(random.integers(6)), -float(random.exponential())) for _ in range(size)] for size in sizes]
    expected = figures([[reading(*token) for token in sample] for sample in samples], [], None, None)
    given = [[{"id": id, "logprob": logprob} for id, logprob in sample] for sample in samples]
    found = evaluate("text_figures.js", "(m, samples) => m.textFigures(samples)", given)
    assert found["tokens"] == expected.n_tokens
    for value, wanted in zip(
        [found["surprisal"], *found["distinct"], found["repeated"]],
        [expected.surprisal, *expected.distinct, expected.repeated],
        strict=True,
    ):
        assert value == (None if wanted is None else pytest.approx(wanted))


@pytest.fixture
def opened(page: Any) -> Any:
    page.goto("/")
    page.wait_for_selector("#sweep form")
    values = {"prompt": PROMPT, "seed": 11, "max_tokens": LENGTH, "n": 2, "top_k": 40}
    page.evaluate("(s) => import('/page/settings.js').then((m) => m.settings.set(s))", values)
    return page


def sweep(page: Any, temperatures: str) -> None:
    page.get_by_label("Temperatures", exact=True).fill(temperatures)
    page.locator("#sweep button[type=submit]").click()


def test_each_column_has_the_samples_that_python_draws(opened, expect):
    sweep(opened, "0 0.7 100")
    expect(opened.locator("#sweep [role=status]")).to_have_text("Done: 3 temperatures, seed 11.")
    model = gpt2lab.load("tales")
    for temperature, n in (("0", 1), ("0.7", 2), ("100", 2)):
        column = opened.locator(f"#sweep [data-temperature='{temperature}']")
        drawn = model.generate(
            [PROMPT], n=n, length=LENGTH, temperature=float(temperature), top_k=40, seed=11, logprobs=True
        )
        assert column.locator(".sample").all_text_contents() == [each.text for each in drawn]
        readings = [[reading(*token) for token in zip(each.tokens, each.logprobs, strict=True)] for each in drawn]
        expected = figures(readings, [], None, None)
        said = column.locator("dd").all_text_contents()
        assert said[0] == f"{expected.surprisal:.2f} nats"
        assert said[3] == str(expected.n_tokens)


def test_a_sweep_can_be_stopped(opened, expect):
    opened.evaluate("import('/page/settings.js').then((m) => m.settings.set({max_tokens: 500, n: 8}))")
    sweep(opened, "0.8 1 1.2")
    expect(opened.locator("#sweep .sample .t").first).to_be_attached()
    opened.locator("#sweep").get_by_role("button", name="Stop").click()
    expect(opened.locator("#sweep [role=status]")).to_have_text("Stopped.")
    expect(opened.locator("#sweep button[type=submit]")).to_be_enabled()


def test_a_sweep_waits_for_a_busy_server(opened, expect, complaints):
    complaints.forgive("status of 429")
    opened.evaluate("import('/page/settings.js').then((m) => m.settings.set({max_tokens: 4, n: 1}))")
    refused = []

    def busy(route):
        if len(refused) >= 5:
            return route.continue_()
        refused.append(route)
        body = {"error": {"message": "too many", "type": "rate_limit_error", "param": None, "code": "queue_full"}}
        return route.fulfill(status=429, headers={"Retry-After": "0.2"}, json=body)

    opened.route("**/v1/completions", busy)
    sweep(opened, "0 0.5 1 2")
    expect(opened.locator("#sweep [role=status]")).to_have_text("Done: 4 temperatures, seed 11.")
    for column in opened.locator("#sweep .sweep-column").all():
        assert column.locator(".sample .t").count() == 4


def test_what_is_no_list_of_temperatures_is_said(opened, expect):
    status = opened.locator("#sweep [role=status]")
    for temperatures in ("", "warm", "1 -1", " ".join(map(str, range(17)))):
        status.evaluate("(element) => { element.textContent = '' }")
        sweep(opened, temperatures)
        expect(status).to_have_text(re.compile("Enter up to 16 temperatures"))
    assert opened.locator("#sweep .sweep-column").count() == 0


def test_a_columns_temperature_and_seed_can_be_taken_over(opened, expect):
    opened.evaluate("import('/page/settings.js').then((m) => m.settings.set({max_tokens: 4, seed: null}))")
    sweep(opened, "0.5, 1.3")
    expect(opened.locator("#sweep [role=status]")).to_have_text(re.compile("Done"))
    seed = int(re.search(r"seed (\d+)", opened.locator("#sweep [role=status]").text_content())[1])
    opened.get_by_role("button", name="Use temperature 1.3").click()
    now = opened.evaluate("import('/page/settings.js').then((m) => m.settings.get())")
    assert (now["temperature"], now["seed"]) == (1.3, seed)


def test_what_the_server_refuses_is_said(opened, expect, complaints):
    complaints.forgive("status of 400")
    opened.evaluate("import('/page/settings.js').then((m) => m.settings.set({max_tokens: 100000}))")
    sweep(opened, "1")
    expect(opened.locator("#sweep [role=status]")).to_have_text(re.compile("context|tokens"))
    expect(opened.locator("#sweep button[type=submit]")).to_be_enabled()
