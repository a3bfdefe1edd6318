"""The progress line; text is shown while it is generated."""

from __future__ import annotations

import re

import pytest

from gpt2lab.cli import progress
from gpt2lab.cli.output import header, print_as_made
from gpt2lab.cli.progress import Progress
from gpt2lab.generation.completion import Completion, Piece


def pieces(n_tokens: int):
    done = Completion(prompt="A", text="x" * n_tokens, tokens=[1] * n_tokens, logprobs=None, seed=1, index=0,
                      finish_reason="length")  # fmt: skip
    for i in range(n_tokens):
        yield Piece(0, "A", "x", done if i == n_tokens - 1 else None)


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances by ten seconds at each reading."""
    seconds = iter(range(0, 10**6, 10))
    monkeypatch.setattr(progress, "monotonic", lambda: next(seconds))


def test_a_long_job_tells_its_tokens_per_second(clock, capsys) -> None:
    with Progress(2, live=False) as bar:
        assert len(list(bar.watch(pieces(5)))) == 5
    told = capsys.readouterr().err
    assert re.fullmatch(r"gpt2lab: 1 of 2 samples, 5 tokens in \d+\.0 s \(\d+\.\d tokens/s\)\n", told)


def test_a_long_job_reports_in_between_if_nothing_else_is_shown(clock, capsys) -> None:
    with Progress(None, live=True) as bar:
        list(bar.watch(pieces(100)))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 2
    assert all(line.startswith("gpt2lab: ") and "tokens/s" in line for line in lines)


def test_a_short_job_says_nothing(capsys) -> None:
    with Progress(1, live=True) as bar:
        list(bar.watch(pieces(5)))
    assert capsys.readouterr().err == ""


def test_each_piece_is_printed_before_the_next_is_made(capsys) -> None:
    seen = []

    def watched():
        for piece in pieces(3):
            seen.append(capsys.readouterr().out)
            yield piece

    print_as_made(watched(), lambda prompt: prompt)
    assert seen == ["", header(1) + "Ax", "x"]
    assert capsys.readouterr().out == "x\n"
