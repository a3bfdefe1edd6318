"""Measure the time until the playground is ready, and until it follows a slider, in headless Chromium.

    python benchmarks/page.py [--model_name tales] [--rounds 7]

Needs the extras ``serve`` and ``browser``, and a Chromium on the path. Each round opens the page with nothing cached.
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

from playwright.sync_api import Browser, sync_playwright

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model_name", default="tales")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise SystemExit("there is no chromium or google-chrome on the path")
    with serving(options.model_name) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        found = [measured(browser, url) for _ in range(options.rounds)]
        browser.close()
    for name in ("paint", "ready", "prompt", "slider"):
        each = [one[name] for one in found]
        print(json.dumps({"ms": name, "median": round(statistics.median(each)), "most": round(max(each))}))


def measured(browser: Browser, url: str) -> dict[str, float]:
    """Return milliseconds to the first paint, to the ready page, to the prompt's tokens, and of a slider's step."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        page = context.new_page()
        page.goto(url)
        page.locator("#tokens .given").first.wait_for()
        times: dict[str, float] = page.evaluate(TIMES)
        page.locator("#tokens .given").first.click()  # a place whose bars follow
        page.wait_for_timeout(500)
        return {**times, "slider": statistics.median(page.evaluate(SLIDER))}
    finally:
        context.close()


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
