"""The page at /watch: a run's curves and texts while they are written, its readout, and its checkpoints."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import needs

from .conftest import GOLDEN

NAMES = ["begins", "read", "texts", "anew", "lost", "one", "two", "ended", "spike", "guess", "served"]
RUNS = "gpt2lab.watch.runs"
ALONE = json.dumps({name: {"shown": False} for name in NAMES})
"""The stored choices of a user who switched the other runs off."""
HOSTILE = "<img src=x onerror=\"console.error('run')\">\u202e<script>console.error('run')</script>&amp;\x00"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("watched")


@pytest.fixture(scope="module")
def url(serve: Callable[..., str], base: Path) -> str:
    """Provide a server that watches a run for each test; none of them exists yet."""
    return serve(*(argument for name in NAMES for argument in ("--watch", str(base / "checkpoint" / name))))


@pytest.fixture
def folder(run_folders: Any, base: Path) -> Callable[[str], Any]:
    return lambda name: run_folders(base, name)


@pytest.fixture
def watch(new_page: Callable[..., Any], url: str, expect: Any) -> Callable[..., Any]:
    """Provide ``watch(name)``: a page that shows this run and is live; with ``alone`` no other run is drawn."""

    def begin(name: str, *, alone: bool = True, **options: Any) -> Any:
        page = new_page(url, **options)
        if alone:
            page.add_init_script(f"localStorage.getItem('{RUNS}') ?? localStorage.setItem('{RUNS}', '{ALONE}')")
        page.goto(f"/watch#{name}")
        expect(page.locator("#connection")).to_have_text("live")
        expect(page.locator("#run-title")).to_have_text(name)
        return page

    return begin


def fill(run: Any, last: int, *, every: int = 10) -> None:
    for step in range(1, last + 1):
        run.update(step, 5 - 2 * step / last)
        if step % every == 0:
            run.validation(step, 5.5 - 2 * step / last)


def place(page: Any, kind: str) -> list[float]:
    """Return the heights of a line's points in pixels, from the top."""
    path = page.locator(f"#loss-chart path.line.{kind}").get_attribute("d")
    return [float(point.split(" ")[1]) for point in path[1:].split("L")]


# ---- a run that goes on ----------------------------------------------------------------------------------------------


def test_a_run_is_seen_from_before_it_begins_to_its_end(watch, folder, expect):
    run, page = folder("begins"), watch("begins")
    expect(page.locator("#state")).to_have_text("not there yet")
    expect(page.locator("#note")).to_contain_text("gpt2lab train --run_name begins")
    expect(page.locator("#figures")).to_be_hidden()
    run.settings(steps=30, model_name="tales", sample_prompt="Once")
    expect(page.locator("#state")).to_have_text("about to begin")
    for step in range(1, 21):
        run.update(step, 5.0 - step / 10)
    run.validation(10, 4.125)
    run.sample(10, "Once upon a time")
    expect(page.locator("#state")).to_have_text("in training")
    expect(page.locator("#note")).to_be_hidden()
    expect(page.locator("#progress-text")).to_have_text(re.compile(r"20 of 30 updates · 66 % · 0:0\d to go, until "))
    expect(page.locator("#tiles")).to_contain_text("4.125")
    expect(page.locator("#tiles")).to_contain_text("held-out perplexity61.868")  # e^4.125
    expect(page.locator("#tiles")).not_to_contain_text("mean")  # the curve's smoothed loss is the only mean
    expect(page.locator("#readout")).to_contain_text("update 20 · loss 3.000 · smoothed")
    expect(page.locator("#sample-title")).to_have_text("After 10 updates · 1 of 1 · held-out loss 4.125")
    expect(page.locator("#texts")).to_contain_text("Once upon a time")
    before = len(place(page, "smoothed"))
    for step in range(21, 31):
        run.update(step, 3.0)
    run.sample(30, "Once upon a hill")
    expect(page.locator("#state")).to_have_text("finished")
    expect(page.locator("#announcement")).to_have_text("begins: finished")
    expect(page.locator("#readout")).to_contain_text("update 30 ·")  # the cursor stays at the newest
    expect(page.locator("#sample-title")).to_contain_text("After 30 updates · 2 of 2")
    assert (before, len(place(page, "smoothed"))) == (20, 30)
    assert "30/30" in page.title()


def test_a_training_begun_anew_takes_the_place_of_the_one_before(watch, folder, expect):
    run = folder("anew")
    run.settings(steps=40)
    fill(run, 40)
    for step in (20, 40):
        run.sample(step, f"text {step}")
    page = watch("anew")
    expect(page.locator("#readout")).to_contain_text("update 40 ·")
    run.path.rename(run.path.with_name("anew-1"))
    expect(page.locator("#state")).to_have_text("its folder is gone")
    expect(page.locator("#note")).to_contain_text("stay here until")
    assert len(place(page, "raw")) == 40
    run.settings(steps=40)
    fill(run, 25)
    expect(page.locator("#readout")).to_contain_text("update 25 ·")
    assert len(place(page, "raw")) == 25
    expect(page.locator("#sample-title")).to_contain_text("After 20 updates")  # the newest of this training
    page.get_by_role("button", name="Later checkpoint").click()
    expect(page.locator("#sample-title")).to_contain_text(
        "from an earlier training run: this one has not reached that update"
    )


def test_a_lost_connection_is_told_and_comes_back(watch, folder, expect, complaints):
    complaints.forgive("Failed to load resource")
    run = folder("lost")
    fill(run, 5)
    page = watch("lost")
    expect(page.locator("#readout")).to_contain_text("update 5 ·")
    page.route("**/watch/events", lambda route: route.abort())
    page.reload()  # which loses it
    expect(page.locator("#connection")).to_have_text(re.compile(r"no connection; trying again in \d+ s"))
    run.update(6)
    page.unroute("**/watch/events")
    page.evaluate("() => dispatchEvent(new Event('online'))")
    expect(page.locator("#connection")).to_have_text("live")
    expect(page.locator("#readout")).to_contain_text("update 6 ·")


# ---- reading off -----------------------------------------------------------------------------------------------------


def test_curves_are_read_off_with_pointer_and_keys(watch, folder, expect):
    run = folder("read")
    run.settings(steps=100)
    fill(run, 50)
    page = watch("read")
    readout, cursor = page.locator("#readout"), page.get_by_label("Values at an update")
    expect(readout).to_contain_text("update 50 · loss 3.000 · smoothed 3")
    held_out = "held out 3.500 at 50, perplexity 33.115"
    expect(readout).to_contain_text(f"{held_out} · learning rate 1.0e-3 · 100 tokens per second")
    box = page.locator("#loss-chart").bounding_box()
    page.mouse.move(box["x"] + 46 + (box["width"] - 60) * (20 - 1) / 99, box["y"] + 50)
    expect(readout).to_contain_text("update 20 · loss 4.200")
    expect(page.locator("#loss-chart .cursor-mark circle.held-out")).to_have_count(1)
    page.mouse.move(0, 0)
    expect(readout).to_contain_text("update 50 ·")
    cursor.focus()
    page.keyboard.press("Home")
    expect(readout).to_contain_text("update 1 · loss 4.960")
    page.keyboard.press("ArrowRight")
    expect(readout).to_contain_text("update 2 ·")
    assert cursor.get_attribute("aria-valuetext") == readout.inner_text()
    run.update(51, 2.9)
    expect(page.locator("#tiles")).to_contain_text("2.900")
    expect(readout).to_contain_text("update 2 ·")  # the user's cursor stays


def test_axes_and_smoothing_are_chosen_and_kept(watch, folder, expect):
    run = folder("read")
    if not run.metrics.exists():
        fill(run, 50)
    page = watch("read")
    expect(page.locator("#loss-chart path.raw")).to_be_attached()
    linear = place(page, "raw")
    page.get_by_label("Smoothing").fill("0")
    expect(page.get_by_label("fit to the run's length")).not_to_be_checked()
    expect(page.locator("#smoothing-value")).to_have_text("none")
    assert place(page, "smoothed") == place(page, "raw")
    page.get_by_label("Loss axis").select_option("logarithmic")
    page.get_by_label("Update axis").select_option("logarithmic")
    bent = place(page, "raw")
    assert bent != linear and bent == sorted(bent)
    page.reload()
    expect(page.get_by_label("Loss axis")).to_have_value("log")
    expect(page.locator("#smoothing-value")).to_have_text("none")
    expect(page.locator("#loss-chart path.raw")).to_be_attached()
    assert place(page, "raw") == bent


def test_the_numbers_are_in_a_table_too(watch, folder, expect):
    run = folder("read")
    if not run.metrics.exists():
        fill(run, 50)
    page = watch("read")
    page.get_by_text("The numbers as a table").click()
    rows = page.locator("#table tbody tr")
    expect(rows).to_have_count(40)
    cells = rows.nth(0).locator("th, td").all_inner_texts()
    assert cells == ["1", "4.960", "4.960", "–", "–", "1.0e-3", "100"]
    cells = rows.nth(39).locator("th, td").all_inner_texts()
    assert cells[3:5] == ["3.500", "33.115"]
    assert page.locator("#table tbody th[scope=row]").count() == 40
    label = page.locator("#loss-chart svg").get_attribute("aria-label")
    assert re.match(
        r"Loss of read over updates\. Training loss, smoothed: 4\.96 to .* Best held-out loss: 3\.500 after 50", label
    )


# ---- texts -----------------------------------------------------------------------------------------------------------


def test_texts_are_stepped_through_and_nothing_in_them_is_run(watch, folder, expect):
    run = folder("texts")
    run.settings(steps=30, sample_prompt="The king")
    fill(run, 30)
    run.sample(10, "The king is here.", "second at 10")
    run.sample(20, "The king was not here.", "second at 20")
    run.sample(30, "The king was " + HOSTILE, "second at 30")
    page = watch("texts")
    title, texts = page.locator("#sample-title"), page.locator("#texts .sample-text")
    expect(title).to_contain_text("After 30 updates · 3 of 3 · held-out loss 3.500")
    expect(texts).to_have_count(2)
    assert texts.nth(1).evaluate("e => e.textContent") == "The king was " + HOSTILE
    assert texts.nth(1).locator("*:not(mark, .given)").count() == 0
    page.get_by_role("button", name="Earlier checkpoint").click()
    expect(title).to_contain_text("After 20 updates")
    expect(page.get_by_label("follow the newest")).not_to_be_checked()
    expect(texts.nth(0)).to_have_text("The king is here.")
    assert texts.nth(1).locator("mark").all_inner_texts() == ["was not"]
    assert texts.nth(1).locator(".given").inner_text() == "The king"
    run.sample(31, "The king", "second at 31")
    expect(title).to_contain_text("2 of 4")  # the user's choice stays here, too
    slider = page.get_by_role("slider", name="Checkpoint")
    slider.focus()
    page.keyboard.press("Home")
    expect(title).to_contain_text("After 10 updates · 1 of 4")
    assert slider.get_attribute("aria-valuetext") == "After 10 updates, 1 of 4, held-out loss 4.833"
    expect(texts).to_have_count(1)
    page.get_by_label("Compare with").select_option("nothing")
    page.locator("#number").select_option("2")
    expect(texts).to_have_text(["second at 10"])
    expect(page.get_by_role("button", name="Earlier checkpoint")).to_be_disabled()
    run.sample(10, "The king", "written again")
    expect(texts).to_have_text(["written again"])


@pytest.mark.parametrize(
    ("before", "after", "new"),
    [
        ("a b c", "a b c", []),
        ("a b c", "a x c", [" x"]),
        ("", "all new ", ["all new "]),
        ("all gone", "", []),
        ("a b", "a  b\n", []),
        ("one two three four", "zero one three five four", ["zero", " five"]),
    ],
)
def test_what_is_new_is_what_is_not_in_both(evaluate, before, after, new):
    call = "(m, [before, after]) => m.whatIsNew(before, after)"
    pieces = evaluate("watch_words.js", call, [before, after])
    assert "".join(piece["text"] for piece in pieces) == after
    assert [piece["text"] for piece in pieces if piece["isNew"] and piece["text"].strip()] == new


def test_texts_too_long_to_compare_are_not(evaluate):
    assert evaluate("watch_words.js", "(m) => m.whatIsNew('a '.repeat(2000), 'b')") is None


# ---- arithmetic ------------------------------------------------------------------------------------------------------


def test_smoothing_is_the_trainers_running_mean_whatever_is_put_together(evaluate):
    losses = [3.0, 1.0, 2.0, 5.0, 4.0, 4.0]
    single = [[step, step, 1, step, loss, loss, loss] for step, loss in enumerate(losses, start=1)]
    average, weight, expected = 0.0, 0.0, []
    for loss in losses:
        average, weight = 0.9 * average + loss, 0.9 * weight + 1
        expected.append(average / weight)
    call = "(m, [rows, decay]) => m.smoothed(rows, decay)"
    assert evaluate("watch_run.js", call, [single, 0.9]) == pytest.approx(expected)
    double = [[step, step + 1, 2, step, 0, 9, 4.0] for step in (1, 3, 5)]
    assert evaluate("watch_run.js", call, [double, 0.9]) == pytest.approx([4.0] * 3)
    assert evaluate("watch_run.js", call, [single, 0]) == losses


@pytest.mark.parametrize(
    ("curves", "log", "expected"),
    [
        ([[3.0, 2.0, 9.0]], False, [2.0, 9.0]),  # too few to tell
        ([[]], False, None),
        ([[3 - at / 100 for at in range(100)]], False, [2.01, 3.0]),
        ([[3 - at / 100 for at in range(100)], [5.0]], False, [2.01, 5.0]),  # a short curve counts as it is
        ([[*(3 - at / 100 for at in range(100)), *([1e6] * 4)]], False, [2.03, 3.0]),  # diverged
        ([[*(3 - at / 100 for at in range(100)), *([1e6] * 4)]], True, [2.03, 3.0]),
        ([[2.0] * 50], False, [2.0, 2.0]),
    ],
)
def test_an_axis_leaves_out_outliers(evaluate, curves, log, expected):
    found = evaluate("watch_scale.js", "(m, [curves, log]) => m.typicalRange(curves, log)", [curves, log])
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(("updates", "position"), [(0, 0), (30, 0), (300, 33), (3_000, 67), (300_000, 133)])
def test_smoothing_covers_a_thirtieth_of_a_run(evaluate, updates, position):
    assert evaluate("watch_scale.js", "(m, n) => m.fittedPosition(n)", updates) == position


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (0, 100, False, [0, 20, 40, 60, 80, 100]),
        (3.9, 6.6, False, [4, 5, 6]),
        (2, 2, False, [2]),
        (1, 1000, True, [1, 5, 20, 100, 500]),
        (4.1, 4.4, True, [4.1, 4.2, 4.3, 4.4]),
        (0, 3e-4, False, [0, 1e-4, 2e-4, 3e-4]),
    ],
)
def test_axes_have_round_numbers(evaluate, low, high, log, expected):
    assert evaluate("watch_run.js", "(m, [low, high, log]) => m.ticks(low, high, 6, log)", [low, high, log]) == expected


# ---- everybody can use it --------------------------------------------------------------------------------------------


def test_each_run_has_a_switch_and_a_colour_that_are_kept(watch, folder, expect):
    for name, last in (("one", 10), ("two", 20)):
        fill(folder(name), last)
    page = watch("one", alone=False)
    expect(page.locator("#readout")).to_contain_text("update 10 ·")
    names = page.locator("#loss-chart text.name.other", has_text=re.compile("^two$"))  # others come from earlier tests
    expect(names).to_have_count(1)
    expect(page.get_by_role("checkbox", name="one", exact=True)).to_be_disabled()  # the run on display is always drawn
    before = names.evaluate("e => getComputedStyle(e).fill")
    again = page.get_by_role("button", name="Another colour for two")
    again.focus()
    page.keyboard.press("Enter")
    expect(again).to_be_focused()
    expect(page.locator("#run-list li", has_text="two")).to_have_class("colour-7")  # two was the seventh of eight
    expect(names).not_to_have_css("fill", before)  # the chart is drawn after the list
    after = names.evaluate("e => getComputedStyle(e).fill")
    page.get_by_role("checkbox", name="two", exact=True).uncheck()
    expect(names).to_have_count(0)
    page.reload()
    expect(page.locator("#readout")).to_contain_text("update 10 ·")
    expect(page.get_by_role("checkbox", name="two", exact=True)).not_to_be_checked()
    expect(names).to_have_count(0)
    page.get_by_role("checkbox", name="two", exact=True).check()
    expect(names).to_have_count(1)
    expect(names).to_have_css("fill", after)


def test_another_run_is_chosen_and_named_in_the_address(watch, folder, expect):
    for name, last in (("one", 10), ("two", 20)):
        if not folder(name).metrics.exists():
            fill(folder(name), last)
    page = watch("one")
    page.get_by_label("Run", exact=True).select_option("two")
    expect(page.locator("#readout")).to_contain_text("update 20 ·")
    page.reload()
    expect(page.locator("#run-title")).to_have_text("two")


def test_stored_choices_that_are_not_the_pages_hinder_nothing(watch, folder, expect):
    if not folder("one").metrics.exists():
        fill(folder("one"), 10)
    page = watch("one")
    for text in ('{"one": null, "two": {"colour": 99, "shown": 7}}', "[3]", "{"):
        page.evaluate("([key, text]) => localStorage.setItem(key, text)", [RUNS, text])
        page.reload()
        expect(page.locator("#readout")).to_contain_text("update 10 ·")


@pytest.mark.parametrize(
    ("outcome", "reason", "word", "note"),
    [
        ("diverged", "the loss is nan at update 4, which was discarded", "diverged", None),
        ("interrupted", "Ctrl-C", "stopped", "Run the same command again"),
        ("no better", "the last 3 validations brought no improvement", "finished", None),
        ("failed", "cannot write state-0000003: No space left on device", "failed", "Once the cause is removed"),
    ],
)
def test_the_reason_that_the_trainer_wrote_is_shown(watch, folder, expect, outcome, reason, word, note):
    run = folder("ended")
    run.settings(steps=40)
    run.update(3)
    run.ended(outcome, 3, reason)
    page = watch("ended")
    expect(page.locator("#state")).to_have_text(f"{word}: {reason}")
    expect(page.locator("#announcement")).to_have_text(f"ended: {word}: {reason}")
    if note:
        expect(page.locator("#note")).to_contain_text(note)
    else:
        expect(page.locator("#note")).to_be_hidden()


def test_a_spike_does_not_flatten_the_curve(watch, folder, expect):
    run = folder("spike")
    for step in range(1, 101):
        run.update(step, 812.5 if step in (40, 41) else 5 - 2 * step / 100)
    page = watch("spike")
    expect(page.locator("#outside")).to_have_text(
        "2 points lie outside of the chart, the farthest at 812.5: choose “all values” to see them."
    )
    heights = place(page, "raw")
    assert heights[99] - heights[0] > 200 and heights[39] < 0
    page.get_by_label("Range").select_option("all values")
    expect(page.locator("#outside")).to_be_hidden()
    heights = place(page, "raw")
    assert heights[99] - heights[0] < 5 and heights[39] > 0


def test_pure_guessing_has_a_line_or_is_said_to_lie_above(watch, folder, expect):
    run = folder("guess")
    for step in range(1, 31):
        run.update(step, 11 - step / 10)
    (run.path / "config.json").write_text('{"vocab_size": 50257}')
    page = watch("guess")
    words = "pure guessing among 50,257 tokens: 10.825"
    expect(page.locator("#legend")).to_contain_text(words)
    expect(page.locator("#legend")).not_to_contain_text("above")
    height = float(page.locator("#loss-chart path.reference").get_attribute("d").split()[1].split("H")[0])
    first, second = place(page, "raw")[:2]  # 10.9, 10.8
    assert first < height < second
    for step in range(1, 31):
        run.update(step, 4 - step / 10)
    expect(page.locator("#legend")).to_contain_text(f"{words}, above this chart")
    expect(page.locator("#loss-chart path.reference")).to_have_count(0)


def test_smoothing_fits_the_runs_length(watch, folder, expect):
    run = folder("spike")
    if not run.metrics.exists():
        fill(run, 100)
    page = watch("spike")
    expect(page.locator("#smoothing")).to_have_value("17")  # 33.3 · log10(100 / 30)
    page.get_by_label("Smoothing", exact=False).first.fill("67")
    fits = page.get_by_label("fit to the run's length")
    expect(fits).not_to_be_checked()
    fits.check()
    expect(page.locator("#smoothing")).to_have_value("17")
    page.reload()
    expect(page.locator("#smoothing")).to_have_value("17")


def test_a_run_without_a_served_model_says_how_to_open_it(watch, folder, expect):
    run = folder("served")
    fill(run, 20)
    expect(watch("served").locator("#model-links")).to_contain_text("a server that you start now, without --model_name")


def test_the_runs_model_opens_in_the_playground_and_beside_its_base(
    new_page, serve, tmp_path_factory, run_folders, expect
):
    run = run_folders(tmp_path_factory.mktemp("linked"), "mine")
    run.settings(steps=20, model_name="models/tales")
    fill(run, 20)
    shutil.copytree(GOLDEN / "tiny", run.path, dirs_exist_ok=True)
    page = new_page(serve("--watch", str(run.path), "--model_name", "tales", "--model_name", str(run.path)))
    page.goto("/watch")
    page.get_by_role("link", name="compare with the base, tales").click()
    page.locator("html[data-ready]").wait_for()
    expect(page.locator("#model")).to_have_value("mine")
    pair = page.locator("#compare select")
    assert [pair.nth(at).input_value() for at in (0, 1)] == ["mine", "tales"]
    expect(page.locator("#compare-section")).to_be_in_viewport()
    assert "?" not in page.url
    page.goto("/watch")
    page.get_by_role("link", name="Open this checkpoint in the playground").click()
    expect(page.locator("#model")).to_have_value("mine")
    page.locator("#model").select_option("tales")
    page.reload()
    page.locator("html[data-ready]").wait_for()
    expect(page.locator("#model")).to_have_value("tales")  # the choice, not the link, is kept


def test_without_a_run_the_page_says_how_to_watch_one(page, expect):
    page.goto("/watch")
    expect(page.locator("#note")).to_contain_text("gpt2lab serve --watch checkpoint/run1")
    page.get_by_role("link", name="Playground").click()
    page.get_by_role("link", name="Training").click()
    expect(page.locator("#note")).to_be_visible()


def test_a_server_with_keys_is_given_one(new_page, serve, folder, tmp_path, expect, complaints):
    complaints.forgive("status of 401")
    (tmp_path / "keys").write_text("secret\n")
    run = folder("one")
    if not run.metrics.exists():
        fill(run, 10)
    page = new_page(serve("--api_key_file", str(tmp_path / "keys"), "--watch", str(run.path)))
    page.goto("/watch")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#connection")).to_have_text("this server needs an API key")
    page.get_by_role("button", name="Enter the key").click()
    page.get_by_role("textbox", name="API key").fill("secret")
    page.get_by_role("button", name="Use this key").click()
    expect(page.locator("#connection")).to_have_text("live")
    expect(page.locator("#readout")).to_contain_text("update 10 ·")


# ---- a training ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_training_is_watched_while_it_runs(new_page, serve, tmp_path, expect):
    needs.check("torch")
    (tmp_path / "tales.txt").write_text(
        "Once upon a time there was a mouse who danced until the moon went down. " * 200
    )
    page = new_page(serve("--watch", str(tmp_path / "checkpoint" / "run1")))
    page.goto("/watch")
    expect(page.locator("#state")).to_have_text("not there yet")
    shape = "--from_scratch --n_ctx 32 --n_embd 16 --n_head 2 --n_layer 1 --precision float32 --batch_size 1"
    often = "--steps 1000000 --schedule constant --val_every 10 --sample_every 10 --sample_length 10"
    command = [sys.executable, "-m", "gpt2lab", "train", "--dataset", "tales.txt", *shape.split(), *often.split()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    training = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, env=environment)
    try:
        patience = {"timeout": 250_000}
        expect(page.locator("#state")).to_have_text("in training", **patience)
        expect(page.locator("#sample-title")).to_contain_text(re.compile(r"After \d+ updates · [3-9]"), **patience)
        expect(page.locator("#loss-chart path.held-out")).to_be_attached(**patience)
        expect(page.locator("#texts figure")).to_have_count(2)
        first = page.title()
        expect(page).not_to_have_title(first, **patience)  # it goes on
        assert float(re.search(r" · (\d+\.\d+) · ", page.title())[1]) < 10.9
        training.send_signal(signal.SIGINT)
        assert training.wait(120) == 128 + signal.SIGINT
        if sys.platform == "linux":
            expect(page.locator("#state")).to_have_text("stopped: Ctrl-C")
    finally:
        training.kill()
        training.wait()
    shutil.rmtree(tmp_path / "checkpoint")
    expect(page.locator("#state")).to_have_text("its folder is gone")
