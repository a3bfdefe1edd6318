"""Arguments that users get wrong: a text or a path, a missing one, help after ``--``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TINY = str(Path(__file__).parents[1] / "golden" / "tiny")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()


SCORES = pytest.mark.parametrize("command", [["score"], ["explore", "score"]], ids=" ".join)


@SCORES
@pytest.mark.parametrize("path", ["nofile.txt", "my story.txt", "./nofile", "/no/such", "there/nofile", "run.log"])
def test_a_path_that_does_not_exist_is_no_text(gpt2lab, command: list[str], path: str) -> None:
    result = gpt2lab(*command, path, "--model", TINY)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"gpt2lab: error: there is no file {path};")


@SCORES
@pytest.mark.parametrize("text", ["The king.", "and/or", "e.g.", "It cost 3.50", "no/such", "See a.txt and b", "..."])
def test_other_arguments_are_text(gpt2lab, command: list[str], text: str) -> None:
    result = gpt2lab(*command, text, "--model", TINY)
    assert result.exit_code == 0, result.stderr


@SCORES
def test_a_file_is_read(gpt2lab, command: list[str]) -> None:
    Path("king").write_text("The king said")
    assert "king" in gpt2lab(*command, "king", "--model", TINY).stdout


@SCORES
def test_a_folder_without_text_is_refused(gpt2lab, command: list[str]) -> None:
    assert (
        gpt2lab(*command, "there").stderr
        == "gpt2lab: error: no text at there: give a file, a folder with .txt, .jsonl or .csv files, or a pattern\n"
    )


def test_explore_alone_shows_its_help(gpt2lab) -> None:
    result = gpt2lab("explore")
    assert (result.exit_code, result.stdout) == (0, gpt2lab("explore", "--help").stdout)


def test_encode_without_arguments_names_both(gpt2lab) -> None:
    result = gpt2lab("encode")
    assert result.exit_code == 2
    assert "Missing arguments 'IN' and 'OUT'" in result.stderr


def test_encode_names_the_argument_that_is_missing(gpt2lab) -> None:
    result = gpt2lab("encode", "sea.txt")
    assert result.exit_code == 2
    assert "Missing argument 'OUT', where the tokens of sea.txt go" in result.stderr


@pytest.mark.parametrize("command", [["generate"], ["next"], ["explore", "next"]], ids=" ".join)
def test_help_after_two_dashes_is_not_taken_for_a_prompt(gpt2lab, command: list[str]) -> None:
    result = gpt2lab(*command, "--", "--help")
    assert result.exit_code == 2
    assert result.stderr.startswith("gpt2lab: error: --help after -- is a prompt;")


TAKE_A_TEXT = [["generate"], ["next"], ["score"], ["tokens"], ["explore", "sweep"], ["explore", "compare", "a", "b"]]


TAKE_A_PRECISION = [
    ["generate"],
    ["interactive"],
    ["next", "a"],
    ["eval", "lambada"],
    ["serve"],
    ["bench"],
    ["explore", "sweep", "a"],
    ["explore", "compare", "a", "b", "c"],
]


@pytest.mark.parametrize("command", TAKE_A_PRECISION, ids=lambda command: " ".join(command[:2]))
@pytest.mark.parametrize(("precision", "instead"), [("q8_0", "int8"), ("q4_0", "int4")])
def test_a_file_format_is_no_precision(gpt2lab, command: list[str], precision: str, instead: str) -> None:
    result = gpt2lab(*command, "--precision", precision)
    assert result.exit_code == 2
    [line] = result.stderr.splitlines()
    assert f"{precision} is a file format; as a precision choose {instead}" in line


@pytest.mark.parametrize("command", TAKE_A_TEXT, ids=" ".join)
def test_a_text_without_quotes_gets_the_advice_to_put_it_in_quotes(gpt2lab, command: list[str]) -> None:
    result = gpt2lab(*command, "Once", "upon", "a", "time")
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "gpt2lab: error: unexpected arguments 'upon a time': put a text of several words in quotes (see "
    )


def test_a_pattern_without_quotes_gets_the_advice_to_put_it_in_quotes(gpt2lab) -> None:
    result = gpt2lab("train", "--dataset", "a.txt", "b.txt")
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "gpt2lab: error: unexpected argument 'b.txt': repeat --dataset before each, or put a pattern in quotes (see "
    )


def test_a_superfluous_word_is_named(gpt2lab) -> None:
    result = gpt2lab("serve", "tales")
    assert result.exit_code == 2
    assert result.stderr.startswith("gpt2lab: error: unexpected argument 'tales' (see ")


def test_a_number_with_bounds_is_called_an_integer(gpt2lab) -> None:
    assert "'x' is not a valid integer. (see" in gpt2lab("serve", "--port", "x").stderr
    assert "--nsamples INTEGER  " in gpt2lab("generate", "--help").stdout


ADVISED = [
    ["generate", "--length", "2"],
    ["next"],
    ["explore", "next"],
    ["explore", "attend"],
    ["explore", "sweep", "--temperatures", "1", "--length", "2"],
    ["explore", "compare", TINY, TINY, "--length", "2"],
]


@pytest.mark.parametrize("command", ADVISED, ids=lambda command: " ".join(command[:2]))
def test_a_prompt_that_ends_in_a_space_gets_one_line_of_advice(gpt2lab, command: list[str]) -> None:
    model = [] if "compare" in command else ["--model", TINY]
    assert gpt2lab(*command, "The king ", *model).stderr.count("the prompt ends in a space") == 1
    assert "ends in a space" not in gpt2lab(*command, "The king", *model).stderr


def test_the_advice_names_one_of_many_prompts(gpt2lab) -> None:
    Path("prompts").write_text("The king\nThe queen \n")
    result = gpt2lab("generate", "--prompts", "prompts", "--length", 2, "--model", TINY)
    assert "gpt2lab: prompt 2 ends in a space" in result.stderr


def test_a_bad_line_among_prompts_is_named_by_its_number(gpt2lab) -> None:
    Path("prompts").write_bytes(b"one\ntwo\n\xff\n")
    assert gpt2lab("generate", "--prompts", "prompts").stderr.startswith(
        "gpt2lab: error: prompts is not UTF-8 text (byte 8, line 3): give its --encoding"
    )


@pytest.mark.parametrize("more", [[], ["--out", "out"]], ids=["printed", "as a job"])
def test_a_prompt_that_does_not_fit_is_named_by_its_number(gpt2lab, more: list[str]) -> None:
    Path("prompts").write_text("one\n" + "two " * 80)
    result = gpt2lab("generate", "--prompts", "prompts", "--model", TINY, *more)
    assert result.stderr.startswith("gpt2lab: error: prompt 2: the prompt has ")


def test_a_path_after_an_equals_sign_may_begin_with_the_home_folder(gpt2lab, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert gpt2lab("generate", "x", "--model", TINY, "--length", 2, "--out=~/new.txt").exit_code == 0
    assert (tmp_path / "new.txt").is_file()


@pytest.mark.parametrize("command", [["score"], ["explore", "score"]], ids=" ".join)
def test_a_text_in_the_home_folder_is_read(gpt2lab, monkeypatch, tmp_path: Path, command: list[str]) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "sea.txt").write_text("The sea.")
    result = gpt2lab(*command, "~/sea.txt", "--model", TINY)
    assert result.exit_code == 0, result.stderr
    assert f"{tmp_path / 'sea.txt'}: 3 tokens" in result.stdout


def test_the_name_of_a_column_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,слово\n1,x\n", encoding="utf-8")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "gpt2lab", "inspect", str(tmp_path / "a.csv"), "--column", "слово"]
    subprocess.run(command, env=environment, capture_output=True, check=True)


def test_text_is_utf8_whatever_the_locale() -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "gpt2lab", "tokens", "Привет", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert json.loads(done.stdout)["text"] == "Привет"
