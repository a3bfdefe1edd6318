"""The playground as a user has it: actions that the tests of its parts share."""

from __future__ import annotations

import json
import re
from typing import Any

PROMPT = "Once upon a time"
SHORT = {"prompt": PROMPT, "max_tokens": 24, "seed": 7}
"""Settings of a text that is drawn quickly."""


def visit(page: Any, address: str = "/", **settings: Any) -> Any:
    """Open the playground with ``settings`` over :data:`SHORT`, as an earlier visit may have left them."""
    stored = json.dumps({**SHORT, **settings})
    page.goto("/docs")  # any page of the origin, so that its storage can be filled
    page.evaluate("(stored) => localStorage.setItem('gpt2lab.settings', stored)", stored)
    page.goto(address)
    page.locator("html[data-ready]").wait_for()
    return page


def write(page: Any) -> None:
    """Press the button and wait for the end of the text."""
    page.locator("#tokens .given, #tokens .next").first.wait_for()
    page.click("#run")
    ended(page)
    page.locator("#teach").wait_for(state="hidden")  # the example at the beginning is gone


def ended(page: Any) -> None:
    """Wait until nothing is being drawn."""
    page.locator("#status", has_text=re.compile("^(Done|Stopped|The same)")).wait_for()
    page.locator("#stop[aria-disabled=true]").wait_for()


def change(page: Any, **settings: Any) -> None:
    """Change some settings, as another part of the page does."""
    page.evaluate("(s) => import('/page/settings.js').then((m) => m.settings.set(s))", settings)


def text(page: Any) -> str:
    """Return the text on display, prompt included."""
    if page.locator(".plain[open]").count() == 0:
        page.click(".plain summary")
    page.locator("#plain:not(:empty)").wait_for()
    page.evaluate("() => new Promise(requestAnimationFrame)")  # changes are shown in the next frame
    page.evaluate("() => new Promise(requestAnimationFrame)")
    return page.locator("#plain").text_content()


def show(page: Any, number: int) -> None:
    """Put a text of the tree on display; the topmost is 0."""
    page.locator("[role=treeitem]").nth(number).locator("> .row").click()


def alternatives(page: Any) -> Any:
    """Return the buttons of the panel, once the logits of its place have arrived."""
    page.locator(".alternative .left", has_text="%").first.wait_for()
    return page.locator(".alternative")


def branch(page: Any, place: int, rank: int) -> None:
    """Branch at token ``place`` of those drawn or chosen, with the ``rank``-th likeliest, which is a different one."""
    page.locator("#tokens .drawn, #tokens .chosen").nth(place).click()
    page.locator("#tokens .pinned").wait_for()
    alternatives(page)
    page.locator(".alternative:not(.own)").nth(rank).click()
    ended(page)


def asked(page: Any, **body: Any) -> dict[str, Any]:
    """Return the API's answer to a completion request."""
    answer = page.request.post("/v1/completions", data=body)
    assert answer.ok, answer.text()
    return answer.json()
