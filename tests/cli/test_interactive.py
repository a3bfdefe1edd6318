"""``gpt2lab interactive``: prompts in, completions out, and a Ctrl-C that stops only the sample."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gpt2lab as package
import needs

TINY = str(Path(__file__).parents[1] / "golden" / "tiny")
ASK = "Model prompt >>> "
HEADER = "=" * 40 + " SAMPLE {} " + "=" * 40 + "\n"
RULE = "=" * 80 + "\n"


@pytest.fixture(scope="module")
def model() -> package.LanguageModel:
    return package.load(TINY)


def texts(model, prompt: str, indices: list[int], length: int = 5) -> list[str]:
    pieces = model.pieces(prompt, n=len(indices), first_index=indices[0], length=length, seed=1)
    return [piece.completion.text for piece in pieces if piece.completion]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_completions_are_printed_as_the_original_did(gpt2lab, model, batch_size: int) -> None:
    flags = ("--nsamples", 2, "--length", 5, "--seed", 1, "--batch_size", batch_size, "--model_name", TINY)
    result = gpt2lab("interactive", *flags, input="One\n\nTwo\n")
    first, second = texts(model, "One", [0, 1])
    third, fourth = texts(model, "Two", [2, 3])
    answers = [
        HEADER.format(1) + a + "\n" + HEADER.format(2) + b + "\n" + RULE for a, b in ((first, second), (third, fourth))
    ]
    expected = ASK + answers[0] + ASK + "Prompt should not be empty!\n" + ASK + answers[1] + ASK + "\n"
    # a runner that plays a terminal echoes what is typed
    assert (
        result.stdout.replace(ASK + "One\n", ASK).replace(ASK + "Two\n", ASK).replace(ASK + "\nP", ASK + "P")
        == expected
    )
    assert result.exit_code == 0
    assert result.stderr == "gpt2lab: seed 1\n"


def test_a_prompt_too_long_is_told_and_the_next_one_taken(gpt2lab) -> None:
    result = gpt2lab("interactive", "--length", 3, "--model", TINY, input="x " * 100 + "\nOne\n")
    assert result.exit_code == 0
    assert "gpt2lab: error: the prompt has" in result.stderr
    assert "SAMPLE 1" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "-1"], "temperature"),
        (["--length", "65"], "room for 64, not 65"),
        (["--nsamples", "0"], "Invalid value for '--nsamples'"),
    ],
)
def test_options_that_cannot_work_are_told_before_the_first_prompt(gpt2lab, arguments, message: str) -> None:
    result = gpt2lab("interactive", "--model", TINY, *arguments, input="One\n")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


@needs.mark("POSIX")
def test_who_sits_at_a_terminal_is_told_how_to_end_it() -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "gpt2lab", "interactive", "--length", "1", "--seed", "1", "--model", TINY]
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.close(theirs)
    os.write(ours, b"\x04")  # Ctrl-D
    _, errors = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 0
    assert errors == b"gpt2lab: seed 1\ngpt2lab: Ctrl-D ends the program\n"


@needs.mark("POSIX")
def test_ctrl_c_stops_the_sample_and_not_the_program() -> None:
    command = [sys.executable, "-m", "gpt2lab", "interactive", "--length", "1000000", "--overflow", "slide"]
    process = subprocess.Popen(
        [*command, "--model", TINY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"One\n")
    process.stdin.flush()
    text = b""
    while len(text) < 300:
        text += os.read(process.stdout.fileno(), 1000)
    process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + 60
    while not text.endswith(RULE.encode() + ASK.encode()) and time.monotonic() < deadline:
        text += os.read(process.stdout.fileno(), 1000)
    process.send_signal(signal.SIGINT)  # at the prompt it only prints a reminder of Ctrl-D
    time.sleep(0.2)
    rest, errors = process.communicate(b"", timeout=60)
    assert process.returncode == 0
    assert re.fullmatch(rb"gpt2lab: seed \d+\n\(stopped\)\n\n\(Ctrl-D ends the program\)\n", errors)
    assert rest == ASK.encode() + b"\n"
