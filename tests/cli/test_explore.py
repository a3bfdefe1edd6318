"""``gpt2lab explore``: its commands, the files that they write, and the commands that reproduce samples."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

import needs

GOLDEN = Path(__file__).parents[1] / "golden"
TINY = str(GOLDEN / "tiny")
ODD = str(GOLDEN / "odd")


def samples_of(stdout: str) -> list[str]:
    return [part.split("=\n", 1)[1].removesuffix("\n") for part in stdout.split("=" * 40 + " SAMPLE ")[1:]]


@pytest.mark.parametrize("prompt", ['It\'s a "king" & <b>', "", "-x y", "two\nlines"])
def test_every_sample_of_a_sweep_is_made_again_by_its_command(gpt2lab, prompt):
    flags = (
        "--temperatures",
        0,
        0.7,
        100,
        "--nsamples",
        2,
        "--length",
        6,
        "--seed",
        3,
        "--top_k",
        300,
        "--model",
        TINY,
    )
    result = gpt2lab("explore", "sweep", *flags, "--ignore_eos", "--json", "--", prompt)
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    assert [setting["params"]["temperature"] for setting in record["settings"]] == [0, 0.7, 100]
    for setting in record["settings"]:
        for number, sample in enumerate(setting["samples"], 1):
            name, *arguments = shlex.split(sample["command"])
            assert name == "gpt2lab"
            again = samples_of(gpt2lab(*arguments).stdout)
            assert len(again) == number
            assert again[-1] == prompt + sample["text"]


def test_a_prompt_that_is_a_dash_is_given_back_by_standard_input(gpt2lab):
    result = gpt2lab(
        "explore", "sweep", "-", "--length", 2, "--json", "--temperatures", 1, "--model", TINY, input="-\n"
    )
    command = json.loads(result.stdout)["settings"][0]["command"]
    assert command.startswith("echo - | gpt2lab generate - --temperature 1 --length 2 --seed")


def test_sweep_shows_figures_texts_and_commands(gpt2lab, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    flags = ("--temperatures", "0", "100", "--nsamples", 1, "--length", 4, "--seed", 3, "--model", TINY)
    result = gpt2lab("explore", "sweep", "Hello", *flags)
    assert result.exit_code == 0
    assert f"gpt2lab generate Hello --temperature 100 --length 4 --seed 3 --model_name {TINY}" in result.stdout
    assert "…" not in result.stdout.split("Surprisal")[0]


def test_sweep_writes_a_page_and_pictures(gpt2lab, tmp_path):
    needs.check("matplotlib")
    flags = ("--temperatures", 0, 1, "--nsamples", 1, "--length", 4, "--model", TINY)
    files = ("--html", tmp_path / "a.html", "--png", tmp_path / "a.png", "--svg", tmp_path / "a.svg")
    result = gpt2lab("explore", "sweep", "Hello", *flags, *files)
    assert result.exit_code == 0
    assert (tmp_path / "a.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "a.svg").read_text(encoding="utf-8")


def test_a_picture_without_matplotlib_is_refused_before_any_work(gpt2lab, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = gpt2lab("explore", "sweep", "Hello", "--png", tmp_path / "a.png", "--model", "no-such-model")
    assert result.exit_code == 2
    assert 'pip install "gpt2lab[explore]"' in result.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("sweep", "x", "--temperatures", "--json"), "'--json' is not a valid float"),
        (("sweep", "x", "--temperatures", "1", "-1"), "temperature must be 0"),
        (("sweep", "x", "--length", "65"), "context of 64"),
        (("sweep", "x", "--against", "/no/such.txt"), "cannot read /no/such.txt"),
        (("sweep", "x", "--html", "/no/such/page.html"), "there is no folder /no/such"),
        (("next", "x", "--seed", "-1"), "seed must be"),
        (("next", "x", "--model", ODD), "has no tokenizer"),
        (("attend", "x", "--model", ODD), "has no tokenizer"),
        (("attend", "word " * 80), "more than the 64"),
        (("score", "/no/such.txt"), "there is no file /no/such.txt"),
        (("score", str(Path(__file__)), "--stride", "0"), "stride must be"),
        (("patch", "The king", "The"), "the prompts have 2 and 1 tokens"),
        (("patch", "The king", "The king"), "the two prompts are the same"),
        (("patch", "The king", "The fox", "--answer", "two words"), "has 2 tokens, but an answer is one"),
        (("tokens", "x" * 401), "has 401 bytes"),
    ],
)
def test_mistakes_are_told_in_a_line(gpt2lab, arguments, message):
    takes_model = arguments[0] != "tokens" and "--model" not in arguments
    result = gpt2lab("explore", *arguments, *(("--model", TINY) if takes_model else ()))
    assert result.exit_code == 2
    assert message in result.stderr and len(result.stderr.splitlines()) == 1


def test_next_shows_stages_and_the_draw(gpt2lab):
    flags = ("--temperature", 0.7, "--top_k", 40, "--seed", 1, "--model", TINY, "--precision", "float32")
    result = gpt2lab("explore", "next", "Hello", *flags)
    assert result.exit_code == 0
    assert [
        word for word in ("logit", "model", "temperature", "top_k") if word not in result.stdout.split("\n")[0]
    ] == []
    drawn = json.loads(gpt2lab("explore", "next", "Hello", *flags, "--json").stdout)["settings"][0]["drawn"]
    assert drawn["id"] == drawn["generated"]
    again = gpt2lab(*shlex.split(drawn["command"])[1:], "--json")
    assert json.loads(again.stdout)["tokens"] == [drawn["id"]]


def test_next_sets_temperatures_side_by_side(gpt2lab):
    result = gpt2lab("explore", "next", "--temperatures", 0, 1, 100, "Hello", "--model", TINY)
    assert result.exit_code == 0
    assert [word for word in ("T=0", "T=1", "T=100") if word not in result.stdout.split("\n")[0]] == []


def test_score_writes_text_page_and_json(gpt2lab, tmp_path):
    text = "The king said to the queen that it was late. " * 10
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    result = gpt2lab("explore", "score", tmp_path / "text.txt", "--html", tmp_path / "a.html", "--model", TINY)
    assert result.exit_code == 0
    assert "The king said" in result.stdout and "falls back to 33" in " ".join(result.stdout.split())
    assert """data-tokens='[{"text":"The","probability":""" in (tmp_path / "a.html").read_text(encoding="utf-8")
    record = json.loads(gpt2lab("explore", "score", "-", "--json", "--model", TINY, input=text).stdout)
    plain = json.loads(gpt2lab("score", text, "--json", "--model", TINY).stdout)
    assert record["loss"] == pytest.approx(plain["loss"], abs=1e-5)


def test_compare_tokens_and_attend_write_what_they_should(gpt2lab, tmp_path):
    both = (TINY, TINY, "Hello", "--length", 4, "--seed", 1)
    result = gpt2lab("explore", "compare", *both, "--html", tmp_path / "c.html")
    assert result.exit_code == 0 and "0.0000 nats a token" in result.stdout and (tmp_path / "c.html").exists()
    assert json.loads(gpt2lab("explore", "compare", *both, "--json").stdout)["kl"] == 0
    assert "merge 7,199: O + nce" in gpt2lab("explore", "tokens", "Once").stdout
    assert json.loads(gpt2lab("explore", "tokens", "Once", "--json").stdout)[0]["ids"] == [7454]
    result = gpt2lab("explore", "attend", "Hello there", "--html", tmp_path / "a.html", "--model", TINY)
    assert result.exit_code == 0 and len(result.stdout.splitlines()) == 5 and (tmp_path / "a.html").exists()
    record = json.loads(gpt2lab("explore", "attend", "Hello there", "--json", "--model", TINY).stdout)
    assert len(record["weights"]) == 3 and len(record["lens"]) == 4


def test_patch_shows_a_map_of_layers_and_tokens(gpt2lab, tmp_path):
    both = ("explore", "patch", "The king said", "The fox said", "--model", TINY, "--answer", " the", "--other", " of")
    result = gpt2lab(*both, "--html", tmp_path / "p.html")
    assert result.exit_code == 0 and "' the' over ' of'" in result.stdout and (tmp_path / "p.html").exists()
    effects = json.loads(gpt2lab(*both, "--json").stdout)["effects"]
    assert {place: (len(rows), len(rows[0])) for place, rows in effects.items()} == dict.fromkeys(
        ("resid_pre", "attn_out", "mlp_out"), (3, 3)
    )


def test_the_group_lists_its_commands(gpt2lab):
    result = gpt2lab("explore", "--help")
    assert [
        name for name in ("sweep", "next", "score", "compare", "tokens", "attend") if name not in result.stdout
    ] == []
    assert gpt2lab("explore", "sweep", "x", "--top-k", "x").exit_code == 2  # dashes work here too


def test_a_page_does_not_take_the_place_of_the_text(gpt2lab, tmp_path):
    (tmp_path / "tale.txt").write_text("Once upon a time")
    result = gpt2lab("explore", "score", tmp_path / "tale.txt", "--html", tmp_path / "tale.txt")
    assert (result.exit_code, "is also an input" in result.stderr) == (2, True)
    assert (tmp_path / "tale.txt").read_text() == "Once upon a time"
