"""Measure the time until the playground is ready and until it follows a slider, and its longest frames, in Chromium.

    python benchmarks/page.py [--model_name tales] [--rounds 7] [--tokens 500]

Needs the extras ``serve`` and ``browser``, and a Chromium on the path. Each round opens the page with nothing cached.
The longest frame is the longest time between two frames: while tokens stream in, and while the mouse drags the slider
of the temperature with a token on display. A machine that does anything else at the time makes it longer.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, sync_playwright

FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
TIMES = """() => ({
  ready: performance.getEntriesByName("ready")[0].startTime,
  paint: performance.getEntriesByType("paint").find((entry) => entry.name === "first-contentful-paint")?.startTime,
  prompt: performance.now(),
})"""
SLIDER = """async () => {
  const { settings } = await import("/page/settings.js");
  const painted = async () => {
    await new Promise(requestAnimationFrame);
    const { port1, port2 } = new MessageChannel();
    await new Promise((resolve) => { port1.onmessage = resolve; port2.postMessage(0); });
  };
  const times = [];
  for (let step = 0; step < 30; step += 1) {
    await painted();
    const begin = performance.now();
    settings.set({ temperature: 0.5 + step / 20, top_p: 0.9 });
    await painted();
    times.push(performance.now() - begin);
  }
  return times;
}"""

FRAMES = """() => {
  const gaps = [];
  let last = null;
  const frame = (now) => {
    if (last !== null) gaps.push(now - last);
    last = now;
    window.measuring = requestAnimationFrame(frame);
  };
  window.measuring = requestAnimationFrame(frame);
  window.longestFrame = () => (cancelAnimationFrame(window.measuring), Math.max(...gaps));
}"""
GOALS = {"ready": 1000, "streaming frame": 50, "dragging frame": 50}  # milliseconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model_name", default="tales")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=500, help="tokens that stream in while frames are measured")
    options = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise SystemExit("there is no chromium or google-chrome on the path")
    with serving(options.model_name) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        found = [measured(browser, url, options.tokens) for _ in range(options.rounds)]
        browser.close()
    for name in found[0]:
        each = [one[name] for one in found]
        goal = {"goal": GOALS[name]} if name in GOALS else {}
        print(json.dumps({"ms": name, "median": round(statistics.median(each)), "most": round(max(each)), **goal}))


def measured(browser: Browser, url: str, tokens: int) -> dict[str, float]:
    """Return milliseconds to the first paint, the ready page and the prompt's tokens, of a slider's step, of frames."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        page = context.new_page()
        page.goto(url)
        page.locator("#tokens .given").first.wait_for()
        times: dict[str, float] = page.evaluate(TIMES)
        page.locator("#tokens .given").first.click()  # a place whose bars follow
        page.wait_for_timeout(500)
        slider = statistics.median(page.evaluate(SLIDER))
        return {**times, "slider": slider, "streaming frame": streaming(page, tokens), "dragging frame": dragging(page)}
    finally:
        context.close()


def streaming(page: Page, tokens: int) -> float:
    """Return the longest frame in milliseconds while a text is drawn."""
    settings = {"max_tokens": tokens, "temperature": 1, "top_p": 1, "seed": 1}
    page.evaluate("(s) => import('/page/settings.js').then((m) => m.settings.set(s))", settings)
    page.evaluate(FRAMES)
    page.click("#run")
    page.locator("#status", has_text=re.compile("^Done")).wait_for(timeout=300_000)
    return float(page.evaluate("longestFrame()"))


def dragging(page: Page) -> float:
    """Return the longest frame in milliseconds while the mouse drags the temperature's slider to and fro."""
    page.locator("#tokens .drawn").nth(20).click()
    page.locator(".alternative .left", has_text="%").first.wait_for()
    box = page.locator("#controls input[type=range][data-setting=temperature]").bounding_box()
    assert box is not None
    height = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.3 * box["width"], height)
    page.mouse.down()
    page.evaluate(FRAMES)
    for share in (0.9, 0.1, 0.6, 0.3):
        page.mouse.move(box["x"] + share * box["width"], height, steps=30)
    page.mouse.up()
    return float(page.evaluate("longestFrame()"))


@contextmanager
def serving(model_name: str) -> Iterator[str]:
    """Yield the URL of a separate server."""
    command = [sys.executable, "-m", "gpt2lab", "serve", "--port", "0", "--quiet", "--model_name", model_name]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield next(found[1] for line in process.stderr if (found := re.search(r" on (http://\S+)", line)))
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
