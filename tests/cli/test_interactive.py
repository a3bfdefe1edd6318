"""``gpt2lab interactive``: prompts in, completions out, and a Ctrl-C that stops only the sample."""

from __future__ import annotations

import io
import itertools
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

import gpt2lab as package
import needs
from gpt2lab.cli import interactive
from gpt2lab.generation.kept import KeptPrompts

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


def test_five_turns_with_kept_prompts_equal_five_fresh_runs(gpt2lab, model, monkeypatch) -> None:
    """Each prompt continues the one before; from the second on, that part is known."""
    exact = package.load(TINY, precision="float32", threads=1)
    known: list[int] = []
    begin = KeptPrompts.begin

    def noted(self, *arguments):
        begun = begin(self, *arguments)
        known.append(begun.known)
        return begun

    words = ["Once", "upon", "a", "time", "there", "was", "a", "king", "who", "had", "three", "daughters"]
    prompts = [" ".join(words[: 4 + 2 * turn]) for turn in range(5)]
    answers = [answer for turn, prompt in enumerate(prompts) for answer in texts(exact, prompt, [turn], 6)]
    monkeypatch.setattr(KeptPrompts, "begin", noted)
    flags = ("--length", 6, "--seed", 1, "--model_name", TINY, "--precision", "float32", "--threads", 1)
    result = gpt2lab("interactive", *flags, input="\n".join(prompts) + "\n")
    assert result.exit_code == 0
    said = result.stdout.replace(RULE, "").split(ASK)[1:6]  # a runner that plays a terminal echoes what is typed
    expected = [HEADER.format(1) + answer + "\n" for answer in answers]
    assert [each.removeprefix(f"{prompt}\n") for each, prompt in zip(said, prompts, strict=True)] == expected
    assert known == [0, 4, 6, 8, 10]


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


def read_until(file: IO[bytes], end: bytes) -> bytes:
    """Return what ``file`` has up to ``end``; fail if it does not come within a minute."""
    text = b""
    while not text.endswith(end):
        ready, _, _ = select.select([file], [], [], 60)
        more = os.read(file.fileno(), 1) if ready else b""
        assert more, f"{text!r} does not end in {end!r}"
        text += more
    return text


@needs.mark("POSIX")
def test_ctrl_c_stops_the_sample_and_not_the_program() -> None:
    command = [sys.executable, "-m", "gpt2lab", "interactive", "--length", "1000000", "--overflow", "slide"]
    process = subprocess.Popen(
        [*command, "--model", TINY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write(b"One\n")
    process.stdin.flush()
    read_until(process.stdout, HEADER.format(1).encode())
    process.send_signal(signal.SIGINT)
    read_until(process.stdout, RULE.encode() + ASK.encode())
    process.send_signal(signal.SIGINT)  # at the prompt it only prints a reminder of Ctrl-D
    errors = read_until(process.stderr, b"(Ctrl-D ends the program)\n")
    rest, _ = process.communicate(b"", timeout=60)
    assert process.returncode == 0
    assert re.fullmatch(rb"gpt2lab: seed \d+\n\(stopped\)\n\n\(Ctrl-D ends the program\)\n", errors)
    assert rest == ASK.encode() + b"\n"


class InterruptedOutput(io.StringIO):
    """An output that gets a Ctrl-C as soon as it has printed for the ``at``-th time."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def flush(self) -> None:
        super().flush()
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)


@needs.mark("the main thread")
def test_ctrl_c_after_any_output_stops_a_sample_or_prints_a_reminder(monkeypatch) -> None:
    for at in itertools.count(1):
        output, errors = InterruptedOutput(at), io.StringIO()
        monkeypatch.setattr(sys, "stdin", io.StringIO("One\nTwo\n"))
        monkeypatch.setattr(sys, "stdout", output)
        monkeypatch.setattr(sys, "stderr", errors)
        interactive.command.main(["--model", TINY, "--length", "2", "--seed", "1"], standalone_mode=False)
        if output.left > 0:  # it ended before
            break
        said = errors.getvalue().removeprefix("gpt2lab: seed 1\n")
        assert re.fullmatch(r"\(stopped\)\n|\n\(.* the program\)\n", said), at
        assert output.getvalue().count(RULE) == 2
    assert at > 8


@needs.mark("POSIX")
def test_ctrl_c_just_before_a_read_does_not_wait_for_a_line() -> None:
    # The thread takes the signal, so it does not end a read in the main thread, as if it came just before that.
    script = """
import os, signal, sys, threading
from gpt2lab.cli.main import main
threading.Thread(target=lambda: os.read(int(sys.argv[1]), 1) and signal.raise_signal(signal.SIGINT)).start()
main(["interactive", "--seed", "1", "--model", sys.argv[2]])
"""
    theirs, ours = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(theirs), TINY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[theirs],
    )
    assert process.stdout is not None
    assert process.stderr is not None
    read_until(process.stdout, ASK.encode())
    os.write(ours, b"x")
    read_until(process.stderr, b"(Ctrl-D ends the program)\n")
    process.communicate(b"", timeout=60)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0
