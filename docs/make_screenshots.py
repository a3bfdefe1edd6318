"""Make the screenshots in docs/images/ from the running program, in a headless Chromium.

    python docs/make_screenshots.py [--only PICTURE ...] [--into FOLDER] [--text FILE]

Needs gpt2lab installed with its extras ``serve``, ``browser`` and ``train``, Pillow (which matplotlib brings along),
and a Chromium on the path. The same model gives the same texts; only times differ. The pictures of two models side by
side and of a training watched are left as they are unless FILE is given, the plays of Shakespeare as one text: then
``tales`` is first trained on it in two short runs, which takes minutes.
"""

from __future__ import annotations

import argparse
import io
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

IMAGES = Path(__file__).parent / "images"
FOLDER = [IMAGES]
"""The folder that pictures go into."""
FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--hide-scrollbars"]
COLOURS = 256  # of a palette: a third of the bytes, and no difference to be seen
PATIENCE_MS = 120_000
REPORT_WIDTH, REPORT_HEIGHT = 1040, 1000
PROMPT = "The king said to the"
SETTINGS = {"prompt": PROMPT, "seed": 12, "max_tokens": 90, "temperature": 1.1, "top_k": 60, "min_p": 0.02}
REPORTS = {
    "report-sweep": 'explore sweep "Once upon a time" --temperatures 0 0.7 1 2 --nsamples 1 --length 60 --seed 1',
    "report-score": "explore score tale.txt",
    "report-attend": 'explore attend "The king said to the queen"',
    "report-patch": 'explore patch "The little girl said that" "The little boy said that"',
}
RUNS = {"shakespeare": "", "lora": "--lora 8"}
"""The runs of two pictures, by name: the first is compared with ``tales`` and watched, with the other beside it."""
TRAIN = "--steps 120 --batch_size 2 --block_size 128 --val_every 20 --sample_every 40 --sample_length 100"
WAITING = (
    "#tokens .next.drawing",
    ".alternative :text-is('…')",
    "[aria-busy=true]",
    r".prompt-list li + li .surprisal:not(:text-matches('\\d'))",  # nothing comes before the first token
)
"""What a page has only as long as it waits for the server."""
TALE = "The king and the queen lived in a castle by the sea. One day a mackerel came and asked for their tax return.\n"


def main() -> None:
    """All pictures, or those that are asked for."""
    parser = argparse.ArgumentParser(description="Make the screenshots of the docs.")
    parser.add_argument("--only", nargs="+", choices=[each.__name__ for each in (*PLAYGROUND, reports, compare, watch)])
    parser.add_argument("--into", type=Path, default=IMAGES, metavar="FOLDER", help="put the pictures here instead")
    parser.add_argument("--text", type=Path, metavar="FILE", help="train on this text for the pictures that need it")
    options = parser.parse_args()
    FOLDER[0] = options.into
    options.into.mkdir(exist_ok=True)
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        everything(browser, options.text, lambda picture: not options.only or picture.__name__ in options.only)
        browser.close()


def everything(browser: Browser, text: Path | None, wanted: Callable[[Callable[..., None]], bool]) -> None:
    """Each picture that is wanted; a server is started only for one of them."""
    if pictures := [each for each in PLAYGROUND if wanted(each)]:
        with serving() as url:
            for each in pictures:
                each(browser, url)
    if wanted(reports):
        reports(browser)
    if text and (wanted(compare) or wanted(watch)):
        with trained(text) as runs:
            if wanted(compare):
                with serving("--model_name", "tales", "--model_name", runs[0]) as url:
                    compare(browser, url)
            if wanted(watch):
                with serving(*(argument for run in runs for argument in ("--watch", run))) as url:
                    watch(browser, url)


# ---- the playground -------------------------------------------------------------------------------------------------


def playground(browser: Browser, url: str) -> None:
    """The first screen, with a text and a look into one of its tokens, in both colour schemes."""
    for scheme, name in (("light", "playground"), ("dark", "playground-dark")):
        page = opened(browser, url, scheme=scheme, height=850)
        write(page)
        look(page, 5)
        shoot(page, name)
        page.context.close()


def tour(browser: Browser, url: str) -> None:
    """A step of the tour, beside what it is about."""
    page = opened(browser, url, height=850)
    page.evaluate("location.hash = '#tour=4'")
    page.locator("#tokens .drawn").nth(29).wait_for()
    expect(page.locator("[data-setting=seed]")).to_have_value("1")  # the tour's
    page.evaluate("() => import('/page/settings.js').then((m) => m.settings.set({ top_k: 3 }))")
    expect(page.locator(".alternative.cut")).to_have_count(7)
    page.locator("#tokens .changed").first.wait_for()
    shoot(page, "tour")
    page.context.close()


def examples(browser: Browser, url: str) -> None:
    """An example with its note."""
    page = opened(browser, url, height=700)
    page.get_by_role("button", name="A trailing space").click()
    page.locator("#lesson").wait_for()
    page.locator("[role=treeitem]").nth(1).wait_for(state="attached")
    done(page)
    shoot(page, "examples", clip={"x": 0, "y": 0, "width": 840, "height": 690})
    page.context.close()


def prompt_tokens(browser: Browser, url: str) -> None:
    """The prompt as tokens with surprisals and ids, and the hint about a space at its end."""
    page = opened(browser, url, prompt="The serendipitous mackerel swam ")
    page.locator("#space-hint").wait_for()
    page.check("#prompt-ids")
    picture(page.locator("section.ask"), "prompt-tokens")
    page.context.close()


def follow(browser: Browser, url: str) -> None:
    """The text drawn again while the temperature rises, with the tokens that changed."""
    page = opened(browser, url, height=850, max_tokens=60)
    write(page)
    page.check("#follow")
    look(page, 5)
    page.evaluate("() => import('/page/settings.js').then((m) => m.settings.set({ temperature: 1.15 }))")
    expect(page.locator("#teach")).to_contain_text("With the same seed and these settings")
    page.locator("#tokens .changed").first.wait_for()
    shoot(page, "follow")
    page.context.close()


def alternatives(browser: Browser, url: str) -> None:
    """From the logits to the draw, where every stage cuts something."""
    page = opened(browser, url, top_k=9, top_p=0.85, min_p=0.1, temperature=1.3, repetition_penalty=1.2)
    write(page)
    look(page, 5)
    picture(page.locator("section.stages"), "stage-table")
    picture(page.locator("#inspector"), "alternatives")
    page.context.close()


def branches(browser: Browser, url: str) -> None:
    """A text, branches of it, and a branch of a branch."""
    page = opened(browser, url, max_tokens=40)
    write(page)
    for place, rank in ((5, 0), (9, 2), (20, 1)):
        look(page, place)
        page.locator(".alternative:not(.own)").nth(rank).click()
        expect(page.locator("#tree")).not_to_contain_text("waiting")
        done(page)
    picture(page.locator("section.branches"), "branches")
    page.context.close()


def sweep(browser: Browser, url: str) -> None:
    """Four of the article's temperatures."""
    page = opened(browser, url, prompt="Once upon a time", seed=3, max_tokens=50, n=1, top_k=0, min_p=0, temperature=1)
    page.get_by_label("Temperatures", exact=True).fill("0 0.5 1 1.1 1.2 1.3 2 100")
    page.locator("#sweep button[type=submit]").click()
    expect(page.locator("#sweep [role=status]")).to_have_text(re.compile("Done"))
    picture(page.locator("section.wide").first, "sweep")
    page.context.close()


def inside(browser: Browser, url: str) -> None:
    """The inside at a token, with an MLP switched off."""
    page = opened(browser, url)
    write(page)
    look(page, 32)
    page.locator("#inside > summary").click()
    page.locator("#inside-body[aria-busy=false] [data-part='mlp:6']").click()
    page.locator("#inside-what-if .effect").wait_for()
    page.mouse.move(0, 0)
    picture(page.locator(".inside-section"), "inside")
    page.context.close()


def compare(browser: Browser, url: str) -> None:
    """``tales`` and what fine-tuning made of it."""
    page = opened(browser, url, max_tokens=60)
    page.locator("#compare button[type=submit]").click()
    expect(page.locator("#compare [role=status]")).to_have_text(re.compile("Done"))
    picture(page.locator("#compare-section"), "compare")
    page.context.close()


def watch(browser: Browser, url: str) -> None:
    """A training's curves and samples, with other runs beside it."""
    page = browser.new_page(viewport={"width": 1280, "height": 1500})
    page.goto(f"{url}/watch")
    page.locator("#loss-chart svg path.smoothed:not(.other)").wait_for()
    page.locator("#loss-chart svg path.smoothed.other").wait_for()
    page.locator("#texts .sample-text").nth(1).wait_for()
    shoot(page, "watch")
    page.close()


PLAYGROUND = (playground, tour, examples, prompt_tokens, follow, alternatives, branches, sweep, inside)
"""The pictures of the playground with ``tales``."""


def opened(browser: Browser, url: str, *, scheme: str = "light", height: int = 900, **settings: Any) -> Page:
    """The playground with :data:`SETTINGS` changed by ``settings``."""
    context = browser.new_context(
        base_url=url, viewport={"width": 1280, "height": height}, color_scheme=scheme, reduced_motion="reduce"
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto("/")
    page.wait_for_selector("#sweep form")
    page.evaluate("(s) => import('/page/settings.js').then((m) => m.settings.set(s))", {**SETTINGS, **settings})
    return page


def write(page: Page) -> None:
    """Let it write, to the end."""
    page.click("#run")
    done(page)


def done(page: Page) -> None:
    """Wait for the end of what is written."""
    expect(page.locator("#status")).to_have_text(re.compile("^Done"))


def look(page: Page, place: int) -> None:
    """Look into the ``place``-th token that was drawn or chosen."""
    page.locator("#tokens .drawn, #tokens .chosen").nth(place).click()
    page.locator("#tokens .pinned").wait_for()
    page.mouse.move(0, 0)
    still(page)


# ---- reports --------------------------------------------------------------------------------------------------------


def reports(browser: Browser) -> None:
    """The pages that ``gpt2lab explore --html`` writes, opened from disk."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tale.txt").write_text(TALE, encoding="utf-8")
        for name, command in REPORTS.items():
            gpt2lab = [sys.executable, "-m", "gpt2lab", *shlex.split(command), "--html", "report.html"]
            subprocess.run(gpt2lab, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            page = browser.new_page(viewport={"width": REPORT_WIDTH, "height": 900})
            page.goto(Path(folder, "report.html").as_uri())
            bottom = page.evaluate(
                "Math.max(...[...document.querySelectorAll('main *')].map((e) => e.getBoundingClientRect().bottom))"
            )
            height = min(REPORT_HEIGHT, bottom + 24)
            page.set_viewport_size({"width": REPORT_WIDTH, "height": int(height)})
            shoot(page, name)
            page.close()


# ---- pictures and servers -------------------------------------------------------------------------------------------


def picture(part: Locator, name: str) -> None:
    """A part of a page, with a margin."""
    height = max(2400, int(part.bounding_box()["height"]) + 400)  # nothing sticks, nothing is cut off
    part.page.set_viewport_size({"width": 1280, "height": height})
    part.evaluate("(part) => part.scrollIntoView({ block: 'center', behavior: 'instant' })")
    box = part.bounding_box()
    margin = 12
    clip = {"x": max(0, box["x"] - margin), "y": max(0, box["y"] - margin)}
    clip |= {"width": box["width"] + 2 * margin, "height": box["height"] + 2 * margin}
    shoot(part.page, name, clip=clip)


def still(page: Page) -> None:
    """Wait until nothing is being drawn, and no number on ``page`` is still to come."""
    for waiting in WAITING:
        expect(page.locator(waiting)).to_have_count(0)


def shoot(page: Page, name: str, clip: Any = None) -> None:
    """What ``page`` shows once it is :func:`still`, as a PNG with a palette."""
    still(page)
    taken = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")
    image = taken.quantize(COLOURS, dither=Image.Dither.NONE)
    path = FOLDER[0] / f"{name}.png"
    image.save(path, optimize=True)
    print(f"{path} {path.stat().st_size // 1000} kB")


@contextmanager
def trained(text: Path) -> Iterator[list[str]]:
    """Train :data:`RUNS` on ``text``; their folders, as long as the context is open."""
    with tempfile.TemporaryDirectory() as folder:
        for name, changes in RUNS.items():
            command = f"train --run_name {name} --sample_prompt '{PROMPT}' {TRAIN} {changes}"
            gpt2lab = [sys.executable, "-m", "gpt2lab", *shlex.split(command), "--dataset", str(text.resolve())]
            subprocess.run(gpt2lab, cwd=folder, stdout=subprocess.DEVNULL, check=True)
        yield [str(Path(folder, "checkpoint", name)) for name in RUNS]


@contextmanager
def serving(*arguments: str) -> Iterator[str]:
    """``gpt2lab serve`` with ``arguments`` in a process of its own; its URL."""
    command = [sys.executable, "-m", "gpt2lab", "serve", "--port", "0", "--quiet", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, encoding="utf-8") as process:
        try:
            for line in process.stderr:
                if found := re.search(r"serving .* on (http://\S+)", line):
                    yield found[1]
                    break
            else:
                raise SystemExit(f"{' '.join(command)} ended with {process.wait()}")
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
