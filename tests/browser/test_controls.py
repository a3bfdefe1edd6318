"""Sliders, numbers and the seed: every way to set a value, and invalid values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from typing import Any

import pytest

from .conftest import PATIENCE_MS, Complaints

pytestmark = pytest.mark.slow  # a browser that clicks through the page

ARTICLE = [0, 0.5, 1, 1.1, 1.2, 1.3, 2, 100]


@pytest.fixture(scope="module")
def _playground(browser: Any, server: str) -> Iterator[tuple[Any, Complaints]]:
    with closing(browser.new_context(base_url=server)) as context:
        context.set_default_timeout(PATIENCE_MS)
        complaints = Complaints()
        complaints.watch(context, server)
        page = context.new_page()
        page.goto("/")
        page.wait_for_selector("[data-ready]")
        yield page, complaints


@pytest.fixture
def controls(_playground: tuple[Any, Complaints]) -> Iterator[Any]:
    """Provide the playground, one page for all tests here, with the initial settings."""
    page, complaints = _playground
    page.evaluate("import('/page/settings.js').then((m) => m.settings.set(m.DEFAULTS))")
    yield page
    complaints.check()


def settings(page: Any) -> dict[str, Any]:
    return page.evaluate("import('/page/settings.js').then((m) => m.settings.get())")


def slider(page: Any, name: str) -> Any:
    return page.locator(f"#controls input[type=range][data-setting={name}]")


def number(page: Any, name: str) -> Any:
    return page.locator(f"#controls input[type=number][data-setting={name}]")


def test_every_temperature_of_the_article_has_a_place_on_the_slider(evaluate):
    script = """(m) => m.ARTICLE.map((t) => {
      const at = m.SCALES.temperature.position(t);
      return [at, m.SCALES.temperature.value(at)];
    })"""
    places = evaluate("scales.js", script)
    assert [value for _, value in places] == ARTICLE
    positions = [position for position, _ in places]
    assert all(after - before >= 90 for before, after in pairwise(positions))


def test_scales_rise_and_lead_back_to_where_they_came_from(evaluate):
    script = """(m) => Object.entries(m.SCALES).map(([name, scale]) => {
      const values = Array.from({length: m.STEPS + 1}, (_, at) => scale.value(at));
      const inner = values.slice(0, -1); // the last may stand for "off"
      const rises = inner.every((value, at) => at === 0 || value >= inner[at - 1]);
      const back = values.every((value) => scale.value(scale.position(value)) === value);
      return [name, rises, back];
    })"""
    assert all(rises and back for _, rises, back in evaluate("scales.js", script))


def test_slider_and_number_move_each_other(controls):
    number(controls, "temperature").fill("1.3")
    assert settings(controls)["temperature"] == 1.3
    assert slider(controls, "temperature").get_attribute("aria-valuetext") == "1.3"
    slider(controls, "temperature").press("End")
    assert settings(controls)["temperature"] == 100
    assert number(controls, "temperature").input_value() == "100"


def test_the_right_end_of_top_k_is_off(controls):
    slider(controls, "top_k").press("Home")
    assert settings(controls)["top_k"] == 1
    slider(controls, "top_k").press("End")
    assert settings(controls)["top_k"] == 0
    assert slider(controls, "top_k").get_attribute("aria-valuetext") == "off"


def test_a_number_beyond_the_slider_is_taken(controls):
    number(controls, "temperature").fill("1000")
    assert settings(controls)["temperature"] == 1000
    assert slider(controls, "temperature").input_value() == "1000"


@pytest.mark.parametrize(("name", "value"), [("temperature", "-1"), ("top_p", "1.5"), ("top_k", "1.5"), ("min_p", "")])
def test_what_is_no_value_is_said_and_not_used(controls, name, value):
    before = settings(controls)[name]
    number(controls, name).fill(value)
    assert number(controls, name).get_attribute("aria-invalid") == "true"
    assert controls.locator(".controls .hint:not(.visually-hidden)").count() == 1
    assert settings(controls)[name] == before
    number(controls, name).blur()
    assert number(controls, name).get_attribute("aria-invalid") == "true"  # until it is corrected
    number(controls, name).fill(str(before))
    assert number(controls, name).get_attribute("aria-invalid") == "false"


def test_a_button_for_each_temperature_of_the_article(controls):
    chips = controls.get_by_role("group", name="Temperatures to try").get_by_role("button")
    assert [float(text) for text in chips.all_inner_texts()] == ARTICLE
    chips.last.click()
    assert settings(controls)["temperature"] == 100
    assert chips.last.get_attribute("aria-pressed") == "true"


def test_all_stages_can_be_turned_off_at_once(controls):
    for name, value in (("temperature", "2"), ("top_k", "5"), ("top_p", "0.5"), ("min_p", "0.1")):
        number(controls, name).fill(value)
    controls.get_by_role("button", name="Reset sampling").click()
    now = settings(controls)
    assert [now[name] for name in ("temperature", "top_k", "top_p", "min_p")] == [1, 0, 1, 0]


def test_a_seed_is_digits_or_nothing(controls):
    seed = controls.get_by_label("Seed", exact=True)
    seed.fill("42")
    assert settings(controls)["seed"] == 42
    seed.fill("9223372036854775807")  # beyond a double's digits
    assert settings(controls)["seed"] == "9223372036854775807"
    seed.fill("9223372036854775808")
    assert seed.get_attribute("aria-invalid") == "true"
    assert settings(controls)["seed"] == "9223372036854775807"
    seed.fill("")
    assert settings(controls)["seed"] is None
    controls.get_by_role("button", name="A new seed").click()
    assert seed.input_value() == str(settings(controls)["seed"])
