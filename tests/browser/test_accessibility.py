"""Every page as axe-core sees it, in light and dark, wide and narrow; forced colours; pages that keep still at load.

Each page is opened once and looked at in every way: opening it and writing on it takes longer than looking.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gpt2lab.cli.main import cli

from .conftest import GOLDEN, PATIENCE_MS, Complaints

pytestmark = pytest.mark.slow  # a browser that clicks through the pages

TINY = str(GOLDEN / "tiny")
REPORTS = {
    "sweep report": (
        "sweep",
        "Hello",
        "--temperatures",
        "0",
        "2",
        "--nsamples",
        "1",
        "--length",
        "12",
        "--model",
        TINY,
    ),
    "score report": ("score", "tale.txt", "--model", TINY),
    "compare report": ("compare", TINY, TINY, "Hello", "--length", "12", "--seed", "1"),
    "attend report": ("attend", "Hello there", "--model", TINY),
    "patch report": (
        *("patch", "The king said", "The fox said", "--model", TINY),
        *("--answer", " the", "--other", " of"),
    ),
}
PAGES = ["playground", "playground with texts", "playground with the tour", "training", "glossary", "API", *REPORTS]
LOOKS = [("light", 1920), ("dark", 390), ("light", 390), ("dark", 1920)]
MOST_SHIFT = 0.05
SHIFTS = """() => new Promise((done) => {
  let sum = 0;
  const add = (entries) => entries.forEach((entry) => { if (!entry.hadRecentInput) sum += entry.value; });
  const observer = new PerformanceObserver((list) => add(list.getEntries()));
  observer.observe({ type: "layout-shift", buffered: true });
  setTimeout(() => { add(observer.takeRecords()); done(sum); }, 200);
})"""


def violations(page: Any) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{each['impact']}: {each['id']}: {node['target']} {node['html'][:200]} {node.get('failureSummary', '')}"
        for each in found
        for node in each["nodes"]
    ]


def settled(page: Any) -> None:
    """Wait until transitions have ended, because the colours in between do not count."""
    page.evaluate("Promise.all(document.getAnimations().map((each) => each.finished.catch(() => 0)))")


def sideways(page: Any) -> int:
    """Return the number of pixels by which the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


# ---- the pages -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def addresses(
    serve: Callable[..., str], run_folders: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], str]:
    """Provide the address of a page by its name; reports are written on first use."""
    folder = tmp_path_factory.mktemp("pages")
    run = run_folders(folder, "run1")
    run.settings(steps=60, model_name="tales", sample_prompt="Once")
    for step in range(1, 51):
        run.update(step, 5 - 2 * step / 50)
        if step % 10 == 0:
            run.validation(step, 5.5 - 2 * step / 50)
    for step in (20, 40):
        run.sample(step, f"Once upon {step} times " + "there was a mouse " * step, "x")
    run.ended("interrupted", 50, "Ctrl-C")
    other = run_folders(folder, "run2")
    other.update(1)
    other.update(2)
    models = ("--model_name", "tales", "--model_name", TINY)
    url = serve(*models, "--watch", str(run.path), "--watch", str(other.path))
    paths = {
        "playground": "/",
        "playground with texts": "/",
        "playground with the tour": "/#tour=3",
        "training": "/watch",
        "glossary": "/glossary",
        "API": "/docs",
    }

    def address(name: str) -> str:
        return url + paths[name] if name in paths else report(folder, name).as_uri()

    return address


def report(folder: Path, name: str) -> Path:
    """Return the file of a report of `gpt2lab explore`."""
    path = folder / f"{name.replace(' ', '-')}.html"
    if not path.exists():
        tale = folder / "tale.txt"
        tale.write_text("The king and the queen lived by the sea.\n\nOne day a mackerel came.\n")
        command = [str(tale) if each == "tale.txt" else each for each in REPORTS[name]]
        result = CliRunner().invoke(cli, ["explore", *command, "--html", str(path)])
        assert result.exit_code == 0, result.output
    return path


def ready(page: Any, name: str) -> None:
    """Wait until nothing more happens on a page that has just been opened."""
    page.wait_for_load_state("load")
    if name.startswith("playground"):
        page.locator("#tokens .drawn").nth(29).wait_for()
        page.locator("#tokens .next:not(.drawing)").wait_for()
        page.locator("#compare form").wait_for(state="attached")
        if name == "playground with the tour":
            page.locator("main .toured").first.wait_for()
    elif name == "training":
        page.locator("#texts figure").nth(1).wait_for()
    elif name == "glossary":
        page.locator(".terms dt").first.wait_for()


def used(page: Any, name: str) -> None:
    """Use the page, so that everything on it is seen."""
    if name == "training":
        page.get_by_text("The numbers as a table").click()
        page.get_by_text("Settings of the run").click()
    if name != "playground with texts":
        return
    values = {"seed": 3, "max_tokens": 30, "n": 1, "temperature": 1.2, "top_k": 40, "min_p": 0.02}
    page.evaluate("(s) => import('/page/settings.js').then((m) => m.settings.set(s))", values)
    page.click("#run")
    page.locator("#status", has_text="Done").wait_for()
    page.locator("#tokens .t.drawn").nth(3).click()
    page.locator("#stage-table .draw b").wait_for(state="attached")
    page.get_by_label("Temperatures", exact=True).fill("0 2")
    for part in ("#sweep", "#compare"):
        page.locator(f"{part} button[type=submit]").focus()
        page.keyboard.press("Enter")
        page.locator(f"{part} [role=status]", has_text=re.compile("Done")).wait_for()


@pytest.fixture(scope="module")
def opened(browser: Any, addresses: Callable[[str], str]) -> Iterator[Callable[[str], Any]]:
    """Provide a page by its name, opened and used once."""
    kept: dict[str, Any] = {}
    complaints = Complaints()

    def get(name: str) -> Any:
        if name not in kept:
            context = browser.new_context(reduced_motion="reduce", viewport={"width": 1280, "height": 900})
            context.set_default_timeout(PATIENCE_MS)
            complaints.watch(context, addresses(name).rpartition("/")[0])
            page = context.new_page()
            page.goto(addresses(name))
            ready(page, name)
            used(page, name)
            kept[name] = page
        return kept[name]

    yield get
    for page in kept.values():
        page.context.close()
    complaints.check()


# ---- what is looked at -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(opened, name, scheme, width):
    page = opened(name)
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    settled(page)
    assert violations(page) == []
    assert sideways(page) <= 0


@pytest.mark.parametrize("name", PAGES)
def test_no_page_scrolls_sideways_on_the_narrowest_phone(opened, name):
    page = opened(name)
    page.set_viewport_size({"width": 320, "height": 700})
    assert sideways(page) <= 0


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", [name for name in PAGES if name != "playground with texts"])
def test_a_page_keeps_still_while_it_loads(browser, addresses, name, width):
    with closing(browser.new_context(viewport={"width": width, "height": 850})) as context:
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.goto(addresses(name))
        ready(page, name)
        assert page.evaluate(SHIFTS) < MOST_SHIFT


CONTROLS = """(names) => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (element) => {
    for (let at = element.parentElement; at; at = at.parentElement) {
      const [r, g, b, alpha = 1] = parse(getComputedStyle(at).backgroundColor);
      if (alpha === 1) return [r, g, b];
    }
  };
  const seen = [...document.querySelectorAll(names)].filter((each) => each.checkVisibility() && !each.disabled);
  return seen.flatMap((each) => {
    const style = getComputedStyle(each);
    const [one, other] = [light(parse(style.borderTopColor)), light(ground(each))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    return ratio < 3 ? [`${each.tagName} ${each.id} ${each.className}: ${ratio.toFixed(2)}`] : [];
  });
}"""
BORDERED = "input:not([type=range], [type=checkbox]), textarea, select, .button:not(.quiet, .primary), .chips button"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["playground with texts", "training"])
def test_the_edges_of_controls_have_a_contrast_of_three(opened, name, scheme):
    page = opened(name)
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 1280, "height": 900})
    assert page.evaluate(CONTROLS, BORDERED.replace("button:not(", "button:not([aria-disabled=true], ")) == []


# ---- forced colours --------------------------------------------------------------------------------------------------


@pytest.fixture
def forced(opened: Callable[[str], Any]) -> Iterator[Callable[[str], Any]]:
    """Provide a page by its name in forced colours."""
    seen = []

    def get(name: str) -> Any:
        page = opened(name)
        page.emulate_media(forced_colors="active")
        page.set_viewport_size({"width": 1280, "height": 900})
        seen.append(page)
        return page

    yield get
    for page in seen:
        page.emulate_media(forced_colors="none")


@pytest.mark.parametrize("name", ["playground with texts", "score report"])
def test_unlikely_tokens_are_told_apart_in_forced_colours(forced, name):
    page = forced(name)
    lines = page.locator(".legend li").evaluate_all("(all) => all.map((each) => getComputedStyle(each).textDecoration)")
    assert len(lines) == 5 and len(set(lines)) == 5
    assert "none" in lines[4] and all("underline" in line for line in lines[:4])


@pytest.mark.parametrize(
    ("name", "part", "place"),
    [
        ("playground with texts", ".stage-table .bar", None),
        ("playground with texts", ".alternative .bar", "::after"),
        ("playground with texts", ".split .drawing", None),
        ("playground with texts", ".draw-line .part.is-drawn", None),
        ("score report", ".t.p0", None),
    ],
)
def test_bars_are_seen_in_forced_colours(forced, name, part, place):
    page = forced(name)
    if name == "score report":  # a card has bars
        page.locator(".tokens .t").nth(3).hover()
        part = "#card .bar"
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    colour = f"(bar) => getComputedStyle(bar, {f'{place!r}' if place else 'null'}).backgroundColor"
    assert page.locator(part).first.evaluate(colour) != paper


def test_curves_are_seen_in_forced_colours(forced):
    page = forced("training")
    ink = page.evaluate("getComputedStyle(document.body).color")
    for line in ("raw", "smoothed", "held-out"):
        assert page.locator(f"#loss-chart path.{line}").first.evaluate("(path) => getComputedStyle(path).stroke") == ink
