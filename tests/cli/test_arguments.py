"""Arguments that users get wrong: a text or a path, a missing one, help after ``--``."""

from __future__ import annotations

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
def test_a_folder_is_not_scored(gpt2lab, command: list[str]) -> None:
    assert gpt2lab(*command, "there").stderr == "gpt2lab: error: cannot read there: Is a directory\n"


def test_explore_alone_shows_its_help(gpt2lab) -> None:
    result = gpt2lab("explore")
    assert (result.exit_code, result.stdout) == (0, gpt2lab("explore", "--help").stdout)


def test_encode_names_the_argument_that_is_missing(gpt2lab) -> None:
    result = gpt2lab("encode", "sea.txt")
    assert result.exit_code == 2
    assert "Missing argument 'OUT', where the tokens of sea.txt go" in result.stderr


@pytest.mark.parametrize("command", [["generate"], ["next"], ["explore", "next"]], ids=" ".join)
def test_help_after_two_dashes_is_not_taken_for_a_prompt(gpt2lab, command: list[str]) -> None:
    result = gpt2lab(*command, "--", "--help")
    assert result.exit_code == 2
    assert result.stderr.startswith("gpt2lab: error: --help after -- is a prompt;")
