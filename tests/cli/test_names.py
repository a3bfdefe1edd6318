"""Names of files that are not UTF-8, in every command that shows or stores one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import needs

TINY = Path(__file__).parents[1] / "golden" / "tiny"

pytestmark = needs.mark("Linux")


def named(name: bytes) -> str:
    return os.fsdecode(name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a text and a model with such names in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path(named(b"caf\xe9.txt")).write_text("The king said to the queen that he was old. " * 4)
    shutil.copytree(TINY, named(b"mod\xe9l"), ignore=shutil.ignore_patterns("golden.npz"))
    return tmp_path


TEXT, MODEL = named(b"caf\xe9.txt"), named(b"mod\xe9l")

COMMANDS = {
    "score": ["score", TEXT, "--model", MODEL],
    "score, as JSON": ["score", TEXT, "--model", MODEL, "--json"],
    "explore score": ["explore", "score", TEXT, "--model", MODEL, "--html", named(b"r\xe9.html")],
    "explore score, as JSON": ["explore", "score", TEXT, "--model", MODEL, "--json"],
    "explore compare": ["explore", "compare", MODEL, MODEL, "x", "--length", "2", "--html", "c.html"],
    "explore attend": ["explore", "attend", "x", "--model", MODEL, "--html", "a.html"],
    "explore sweep": ["explore", "sweep", "x", "--model", MODEL, "--length", "2", "--against", TEXT],
    "encode": ["encode", TEXT, named(b"out\xe9")],
    "encode to .npz": ["encode", TEXT, named(b"out\xe9.npz")],
    "inspect": ["inspect", TEXT],
    "info": ["info", MODEL],
    "info, as JSON": ["info", MODEL, "--json"],
    "convert to GGUF": ["convert", MODEL, named(b"o\xe9.gguf")],
    "convert to a folder": ["convert", MODEL, named(b"o\xe9")],
    "eval": ["eval", "perplexity", "--data", TEXT, "--model", MODEL],
    "eval, as JSON": ["eval", "perplexity", "--data", TEXT, "--model", MODEL, "--json"],
    "generate": ["generate", "x", "--model", MODEL, "--length", "2", "--out", named(b"g\xe9")],
    "generate, as a job": ["generate", "--prompts", TEXT, "--model", MODEL, "--length", "2", "--out", named(b"j\xe9")],
    "next": ["next", "x", "--model", MODEL],
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_command_takes_and_shows_names_that_are_not_utf8(gpt2lab, folder: Path, arguments: list[str]) -> None:
    result = gpt2lab(*arguments)
    assert result.exit_code == 0, result.output
    if "--json" in arguments:
        json.loads(result.stdout)


def test_json_gives_the_name_back(gpt2lab, folder: Path) -> None:
    record = json.loads(gpt2lab("eval", "perplexity", "--data", TEXT, "--model", MODEL, "--json").stdout)
    assert record["model"] == MODEL


@pytest.mark.parametrize("command", ["score", "info", "convert"])
def test_an_error_shows_a_name_that_is_not_utf8(gpt2lab, folder: Path, command: str) -> None:
    result = gpt2lab(command, named(b"no/\xe9.txt"), *(["x"] if command == "convert" else []))
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


def test_training_saves_resumes_and_is_loaded_under_such_a_name(gpt2lab, folder: Path, no_curve: None) -> None:
    needs.package("torch")
    run = ["train", "--dataset", TEXT, "--model", MODEL, "--run_name", named(b"r\xe9"), "--block_size", "8"]
    short = ["--batch_size", "1", "--held_out", "0.3", "--sample_every", "1"]
    assert gpt2lab(*run, *short, "--steps", "1").exit_code == 0
    resumed = gpt2lab(*run, *short, "--steps", "2")
    assert resumed.exit_code == 0, resumed.output
    assert gpt2lab("generate", "--model", named(b"checkpoint/r\xe9"), "--length", "2").exit_code == 0


@needs.mark("fastapi")
def test_a_server_names_models_and_runs_in_text_that_requests_can_hold() -> None:
    from gpt2lab.serving.models import name_of
    from gpt2lab.serving.watch.run import open_runs

    assert name_of(named(b"models/mod\xe9l.gguf")) == r"mod\xe9l"
    assert [run.name for run in open_runs([named(b"checkpoint/r\xe9")])] == [r"r\xe9"]


@needs.mark("fastapi")
def test_a_name_that_is_utf8_stays_as_it_is() -> None:
    from gpt2lab.serving.models import name_of

    assert name_of("models/modèl") == "modèl"
