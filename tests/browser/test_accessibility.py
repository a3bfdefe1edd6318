"""Every page as axe-core sees it, in light and dark, wide and narrow: nothing serious or critical."""

from __future__ import annotations

import re
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # a browser that clicks through the page

LOOKS = [
    ("light", 1280),
    ("dark", 320),
    pytest.param("light", 320, marks=pytest.mark.slow),
    pytest.param("dark", 1280, marks=pytest.mark.slow),
]


def violations(page: Any) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{each['impact']}: {each['id']}: {node['target']} {node['html'][:200]} {node.get('failureSummary', '')}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def settled(page: Any) -> None:
    """Wait until transitions have ended, because the colours in between do not count."""
    page.evaluate("Promise.all(document.getAnimations().map((each) => each.finished.catch(() => 0)))")


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_the_playground(new_page, expect, pair_server, scheme, width):
    page = new_page(pair_server, color_scheme=scheme, width=width, reduced_motion="reduce")
    page.goto("/")
    page.wait_for_selector("#compare form", state="attached")
    assert violations(page) == []
    values = {"seed": 3, "max_tokens": 30, "n": 1, "temperature": 1.2, "top_k": 40, "min_p": 0.02}
    page.evaluate("(s) => import('/page/settings.js').then((m) => m.settings.set(s))", values)
    page.click("#run")
    expect(page.locator("#status")).to_have_text(re.compile("Done"))
    page.locator("#tokens .t.drawn").nth(3).click()
    expect(page.locator("#stage-table .draw b")).to_be_attached()
    page.get_by_label("Temperatures", exact=True).fill("0 2")
    for part in ("#sweep", "#compare"):
        page.locator(f"{part} button[type=submit]").focus()
        page.keyboard.press("Enter")
        expect(page.locator(f"{part} [role=status]")).to_have_text(re.compile("Done"))
    settled(page)
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
@pytest.mark.parametrize("path", ["/docs", "/watch", "/glossary"])
def test_the_other_pages(new_page, path, scheme, width):
    page = new_page(color_scheme=scheme, width=width)
    assert page.goto(path).status == 200
    page.wait_for_load_state("load")  # /watch is never idle
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
