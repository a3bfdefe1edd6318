"""The table of stages: it shows what gpt2lab.sampling computes, and moving a slider sends no request."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gpt2lab.exploring.reading import entropy
from gpt2lab.sampling.declaration import SamplingParams
from gpt2lab.sampling.rules import draw, stages, uniform

pytestmark = pytest.mark.slow  # a browser that clicks through the page

VOCABULARY = [f" w{id}" for id in range(12)]
LOGITS = [3.0, 2.5, 2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5, -2.0, -20.0]
PARAMS = {"temperature": 1.3, "top_k": 8, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.5}
HISTORY = [0, 3, 3]

SHOW = """async (m, { logits, history, ...place }) => {
  const { stages } = await import("/page/sampling.js");
  const host = document.createElement("div");
  document.body.append(host);
  new m.StageTable(host).show({ ...place, stages: stages(logits, place.params, history) });
  const text = (row, cell) => [...row.querySelectorAll(cell)].map((each) => each.firstChild?.textContent ?? "");
  return {
    heads: text(host.querySelector("thead"), "th"),
    rows: Object.fromEntries([...host.querySelectorAll("tbody tr")].map((row) => [row.dataset.id, text(row, "td")])),
    feet: [...host.querySelectorAll("tfoot tr")].map((row) => text(row, "td")),
    drawn: host.querySelector("tr.is-drawn")?.dataset.id,
    draw: host.querySelector(".draw").textContent,
    formula: [...host.querySelectorAll(".formula li")].map((each) => each.textContent),
    parts: host.querySelectorAll(".draw-line .part").length,
  };
}"""


def percent(probability: float) -> str:
    """Format a probability as the page does, from 1 % on."""
    return f"{100 * probability:.1f} %"


@pytest.fixture
def show(evaluate: Any) -> Any:
    def run(**changes: Any) -> dict[str, Any]:
        place = {"logits": LOGITS, "params": PARAMS, "history": HISTORY, "vocabulary": VOCABULARY, "u": 0.5}
        return evaluate("stage_table.js", SHOW, {**place, "chosen": None, **changes})

    return run


def test_each_stage_has_a_column_with_its_probabilities(show):
    found = show()
    expected = stages(LOGITS, SamplingParams(**PARAMS), HISTORY)
    assert found["heads"] == ["logit", "model", "penalties", "temperature", "top-k", "top-p", "min-p"]
    for id in range(4):
        logit, *cells = found["rows"][str(id)]
        assert logit == f"{LOGITS[id]:.2f}"
        for cell, stage in zip(cells, expected, strict=True):
            if stage.probabilities[id] > 0.01:
                assert cell == percent(stage.probabilities[id])


def test_a_token_is_marked_where_it_is_cut(show):
    cells = show()["rows"]
    expected = stages(LOGITS, SamplingParams(**PARAMS), HISTORY)
    for id, row in cells.items():
        gone = [stage.probabilities[int(id)] == 0 for stage in expected]
        assert [cell in ("✕ cut", "–") for cell in row[1:]] == gone
        assert row.count("✕ cut") == any(gone)


def test_below_stand_the_rest_what_is_left_what_was_cut_and_the_entropy(show):
    others, left, cut, open_ = (cells[1:] for cells in show()["feet"])
    expected = stages(LOGITS, SamplingParams(**PARAMS), HISTORY)
    assert others[3:] == ["0 %"] * 3  # top-k leaves 8 tokens, and there are ten rows
    assert left == [f"{(stage.probabilities > 0).sum()} tokens" for stage in expected]
    top_k = expected[2].probabilities[expected[3].probabilities == 0]
    assert cut[3] == f"{percent(top_k.sum())}: {len(top_k)} tokens"
    assert open_ == [f"{float(entropy(stage.probabilities)):.2f} nats" for stage in expected]


def test_only_the_stages_that_are_on_have_columns(show):
    assert show(params={"temperature": 2})["heads"] == ["logit", "model", "temperature"]
    assert show(params={})["heads"] == ["logit", "model"]


@pytest.mark.parametrize("params", [{"temperature": 0}, {"top_k": 1}, {"top_k": 2}, {"top_p": 0.1}])
def test_tokens_without_any_probability_are_never_ranked(show, params):
    unlikely = [-1e4, -1e4, *LOGITS[2:], 9.0, 8.0]
    found = show(logits=unlikely, params=params, vocabulary=[f" w{id}" for id in range(14)])
    assert not {"0", "1"} & found["rows"].keys()


def test_the_formula_has_the_numbers_of_this_place(show):
    found = show(params={"temperature": 2, "top_k": 3}, chosen=1)
    weights = [2.718281828459045 ** ((logit - 3) / 2) for logit in LOGITS]
    first, power, share, cut = found["formula"]
    assert first == "logit 2.50, the largest is 3.00: the distance is −0.50"
    assert power == f"e−0.50 ÷ 2 = {weights[1]:.3g}"
    assert share.startswith(f"{weights[1]:.3g} ÷ {sum(weights):.3g},")
    assert share.endswith(percent(weights[1] / sum(weights)))
    assert cut.endswith(f"which top-k left, = {percent(weights[1] / sum(weights[:3]))}")


def numbers(line: str) -> list[float]:
    """Return the numbers of a line of the formula; percentages as probabilities."""
    line = re.sub(r" × 10\^", "e", line.replace("−", "-"))
    found = re.findall(r"(-?\d+(?:\.\d+)?(?:e-?\d+)?)( %)?", line)
    return [float(number) / (100 if percent else 1) for number, percent in found]


@pytest.mark.parametrize("chosen", range(12))
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0.03},
        {"temperature": 1.37, "top_k": 11},
        {"temperature": 0.3, "top_k": 9, "top_p": 0.999, "min_p": 0.001},
        {"temperature": 3, "repetition_penalty": 1.7, "min_p": 0.3},
    ],
)
def test_every_result_of_the_formula_follows_from_the_numbers_shown(show, params, chosen):
    logits = [logit * 1.2345 for logit in LOGITS]
    logits[0] -= 9.87654  # what the cuts leave may have little of the probability
    found = show(logits=logits, params=params, chosen=chosen)
    first, power, *divisions = found["formula"]
    logit, most, distance = numbers(first)
    assert logit - most == pytest.approx(distance, abs=1e-9)
    weight = numbers(power.partition("= ")[2])[0]
    digits = len(re.sub(r"^0\.0*|\D", "", power.partition("= ")[2].partition(" ×")[0]))
    exponent = distance / params.get("temperature", 1)
    assert float(f"{2.718281828459045**exponent:.{max(digits, 3)}g}") == pytest.approx(weight, rel=1e-6)
    before = weight
    for division in (line for line in divisions if "÷" in line):
        one, other, result = numbers(division)
        assert one == pytest.approx(before, rel=1e-9)
        shown = len(re.sub(r"^0\.0*|\D", "", re.findall(r"= (\S+)", division)[-1]))
        assert float(f"{one / other:.{shown}g}") == pytest.approx(result, rel=1e-6)
        before = result
    left = stages(logits, SamplingParams(**params), HISTORY)[-1].probabilities[chosen]
    if left:
        assert before == pytest.approx(left, rel=5e-3)


def test_the_number_lies_in_its_stretch_as_shown(show):
    logits = [0.0] + [-11.0 - 0.01 * id for id in range(11)]
    found = show(logits=logits, params={}, u=0.99995)
    u, low, high = (float(each) for each in re.findall(r"0\.\d+|1\.0+", found["draw"])[:3])
    assert low <= u < high
    assert f"{100 * (high - low):.3f} %" in found["draw"]


@pytest.mark.parametrize("u", [0.0, 0.3, 0.77, 0.999999])
def test_the_draw_is_that_of_python(show, u):
    probabilities = stages(LOGITS, SamplingParams(**PARAMS), HISTORY)[-1].probabilities
    found = show(u=u, chosen=0)
    id = draw(probabilities, u)
    assert found["drawn"] == str(id)
    assert f"{u:.6f} draws ␣w{id}," in found["draw"]
    assert ("The text has" in found["draw"]) == (id != 0)
    assert found["parts"] == (probabilities > 0).sum()


def test_without_a_seed_no_draw_is_claimed(show):
    found = show(u=None)
    assert "No seed" in found["draw"] and found["drawn"] is None


def test_an_unlikely_token_that_was_chosen_by_hand_has_a_row(show):
    assert show(chosen=11)["rows"]["11"][0] not in ("", "·")


# ---- in the playground ----------------------------------------------------------------------------------------------


@pytest.fixture
def write(expect: Any) -> Any:
    """Provide ``write(page, **settings)``, which lets the playground write with these and waits for the end."""

    def run(page: Any, **settings: Any) -> None:
        page.goto("/")
        page.wait_for_selector("[data-ready]")
        page.evaluate("(s) => import('/page/settings.js').then((m) => m.settings.set(s))", settings)
        page.click("#run")
        expect(page.locator("#status")).to_have_text(re.compile("Done"))

    return run


def test_what_the_table_draws_is_what_the_server_drew(page, write, expect):
    write(page, prompt="The king", seed=8, max_tokens=24, **PARAMS)
    tokens = page.locator("#tokens .t.drawn")
    assert tokens.count() == 24
    seen = set()
    for place in (0, 1, 5, 11, 23):
        tokens.nth(place).click()
        number = f"{uniform(8, 0, 2 + place):.6f}"
        expect(page.locator("#stage-table .draw b")).to_have_text(number)
        said = page.text_content("#stage-table .draw")
        assert "The text has" not in said, said
        seen.add(said)
    assert len(seen) == 5


def test_a_slider_redraws_the_table_and_asks_nothing_of_the_server(page, write, expect):
    write(page, prompt="The king", seed=5, max_tokens=8)
    page.locator("#tokens .t.drawn").nth(3).click()
    expect(page.locator("#stage-table .draw b")).to_have_text(f"{uniform(5, 0, 5):.6f}")
    assert page.locator("#stage-table th[data-stage=top_k]").count() == 0
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    for name, stage in (("temperature", "temperature"), ("top_k", "top_k"), ("top_p", "top_p"), ("min_p", "min_p")):
        before = page.text_content("#stage-table table")
        page.locator(f"#controls input[type=range][data-setting={name}]").focus()
        for _ in range(3):
            page.keyboard.press("PageUp" if name in ("temperature", "min_p") else "PageDown")
        expect(page.locator("#stage-table table")).not_to_have_text(before)
        expect(page.locator(f"#stage-table th[data-stage={stage}]")).to_be_attached()  # perhaps a redraw later
    page.wait_for_timeout(200)
    assert asked == []


def test_on_a_narrow_screen_the_table_scrolls_and_the_page_does_not(new_page, write):
    page = new_page(width=320, height=640)
    write(page, seed=5, max_tokens=8, **PARAMS)
    page.locator("#tokens .t.drawn").nth(3).click()
    page.wait_for_selector("#stage-table .draw b", state="attached")
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    assert page.evaluate(
        "(() => { const e = document.querySelector('.stage-table-scroll'); return e.scrollWidth > e.clientWidth })()"
    )
