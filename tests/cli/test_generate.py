"""``gpt2lab generate``: its output, its input, and its exit."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gpt2lab as package
import needs
from gpt2lab.generation.completion import Completion, Piece
from gpt2lab.sampling.declaration import PARAMETERS
from gpt2lab.version import CONTRACT

GOLDEN = Path(__file__).parents[1] / "golden"
TINY = str(GOLDEN / "tiny")
ODD = str(GOLDEN / "odd")
HEADER = "=" * 40 + " SAMPLE {} " + "=" * 40 + "\n"


@pytest.fixture(scope="module")
def model() -> package.LanguageModel:
    return package.load(TINY)


def records(output: str) -> list[dict]:
    return [json.loads(line) for line in output.splitlines()]


def test_a_sample_is_printed_under_the_originals_header_with_its_prompt(gpt2lab, model) -> None:
    result = gpt2lab("generate", "Once upon", "--length", 6, "--seed", 1, "--model_name", TINY)
    text = model.generate("Once upon", length=6, seed=1).text
    assert result.exit_code == 0
    assert result.stdout == HEADER.format(1) + "Once upon" + text + "\n"
    assert result.stderr == "gpt2lab: seed 1\n"


def test_without_a_prompt_it_writes_to_the_end_of_the_context(gpt2lab, model) -> None:
    result = gpt2lab("generate", "--seed", 2, "--model", TINY, "--ignore_eos")
    assert result.stdout == HEADER.format(1) + model.generate("", length=64, seed=2, ignore_eos=True).text + "\n"


@pytest.mark.parametrize("how", [["--speculation", "off"], ["--speculation", "auto"], ["--draft", TINY]])
def test_guessing_ahead_changes_no_text(gpt2lab, model, how) -> None:
    result = gpt2lab("generate", "Once upon", "--length", 30, "--seed", 1, "--model_name", TINY, *how)
    text = model.generate("Once upon", length=30, seed=1, speculation="off").text
    assert result.stdout == HEADER.format(1) + "Once upon" + text + "\n"


@pytest.mark.parametrize("command", ["generate", "interactive"])
def test_a_draft_model_that_may_not_guess_is_told_to_be_useless(gpt2lab, command) -> None:
    result = gpt2lab(command, "--length", 1, "--model", TINY, "--draft", TINY, "--speculation", "off", input="")
    assert result.exit_code == 0
    assert result.stderr.startswith("gpt2lab: --draft has no effect with --speculation off\n")


def test_a_draft_model_with_another_vocabulary_is_a_users_error(gpt2lab) -> None:
    result = gpt2lab("generate", "Once upon", "--model_name", TINY, "--draft", ODD)
    assert result.exit_code == 2
    assert "the draft model has a vocabulary of 307" in result.stderr


@pytest.mark.parametrize("batch_size", [None, 1, 3, 8])
def test_samples_are_numbered_and_the_same_at_any_batch_size(gpt2lab, model, batch_size) -> None:
    bound = ["--batch_size", batch_size] if batch_size else []
    result = gpt2lab("generate", "A", "--nsamples", 3, "--length", 4, "--seed", 1, "--model", TINY, *bound)
    texts = [c.text for c in model.generate("A", n=3, length=4, seed=1)]
    assert result.stdout == "".join(HEADER.format(n) + "A" + text + "\n" for n, text in enumerate(texts, 1))


def test_every_flag_may_be_spelled_with_dashes(gpt2lab) -> None:
    plain = gpt2lab("generate", "A", "--length", 4, "--top_k", 3, "--batch_size", 2, "--seed", 1, "--model_name", TINY)
    dashes = gpt2lab("generate", "A", "--length=4", "--top-k=3", "--batch-size=2", "--seed=1", f"--model-name={TINY}")
    assert plain.exit_code == dashes.exit_code == 0
    assert plain.stdout == dashes.stdout


def test_every_sampling_parameter_reaches_the_sampler(gpt2lab, model) -> None:
    values = {
        "temperature": 0.7,
        "top_k": 9,
        "top_p": 0.8,
        "min_p": 0.01,
        "repetition_penalty": 1.5,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.25,
    }
    assert values.keys() == PARAMETERS.keys()
    flags = [flag for name, value in values.items() for flag in (f"--{name}", value)]
    result = gpt2lab("generate", "A", "--length", 9, "--seed", 3, "--json", "--model", TINY, *flags)
    assert records(result.stdout)[0]["completion"] == model.generate("A", length=9, seed=3, **values).text


def test_json_lines_keep_prompt_and_completion_apart(gpt2lab, model) -> None:
    result = gpt2lab("generate", "Só", "--nsamples", 2, "--length", 4, "--seed", 1, "--json", "--model", TINY)
    expected = model.generate("Só", n=2, length=4, seed=1)
    assert records(result.stdout) == [
        {
            "prompt": "Só",
            "completion": completion.text,
            "tokens": completion.tokens,
            "seed": 1,
            "index": index,
            "finish_reason": "length",
            "contract": CONTRACT,
        }
        for index, completion in enumerate(expected)
    ]
    assert "Só" in result.stdout  # not escaped


def test_the_seed_drawn_is_told_on_stderr_and_in_json(gpt2lab) -> None:
    result = gpt2lab("generate", "--length", 3, "--json", "--model", TINY)
    (record,) = records(result.stdout)
    assert result.stderr == f"gpt2lab: seed {record['seed']}\n"
    again = gpt2lab("generate", "--length", 3, "--json", "--seed", record["seed"], "--model", TINY)
    assert again.stdout == result.stdout


def test_stop_strings_may_be_repeated(gpt2lab, model) -> None:
    text = model.generate("A", length=20, seed=1).text
    flags = ("--length", 20, "--seed", 1, "--json", "--model", TINY)
    (record,) = records(gpt2lab("generate", "A", "--stop", "\x00", "--stop", text[9:12], *flags).stdout)
    assert record["completion"] == text[: text.index(text[9:12])]
    assert record["finish_reason"] == "stop"


def test_the_context_may_slide(gpt2lab) -> None:
    flags = ("--length", 70, "--json", "--ignore_eos", "--model", TINY)
    (record,) = records(gpt2lab("generate", "A", "--overflow", "slide", *flags).stdout)
    assert len(record["tokens"]) == 70
    assert gpt2lab("generate", "A", *flags).exit_code == 2


# ---- where prompts come from ----------------------------------------------------------------------------------------


def prompts_of(result) -> list:
    assert result.exit_code == 0, result.stderr
    return [record["prompt"] for record in records(result.stdout)]


def test_a_prompt_from_standard_input_loses_its_last_newline_only(gpt2lab) -> None:
    flags = ("--length", 0, "--json", "--model", TINY)
    assert prompts_of(gpt2lab("generate", "-", *flags, input="Ein\r\nJä\n\n".encode())) == ["Ein\nJä\n"]
    assert prompts_of(gpt2lab("generate", "-", *flags, input="two\r\n")) == ["two"]


def test_a_prompt_from_a_file(gpt2lab, tmp_path) -> None:
    (tmp_path / "prompt.txt").write_bytes(b"\xef\xbb\xbfOne\nprompt\n")
    result = gpt2lab("generate", "--prompt_file", tmp_path / "prompt.txt", "--length", 0, "--json", "--model", TINY)
    assert prompts_of(result) == ["One\nprompt"]


def test_several_prompts_one_a_line(gpt2lab, tmp_path, model) -> None:
    (tmp_path / "prompts.txt").write_text("One\n\nTwo {\r\n  Three", newline="")
    result = gpt2lab(
        "generate", "--prompts", tmp_path / "prompts.txt", "--length", 2, "--json", "--model", TINY, "--nsamples", 2
    )
    assert prompts_of(result) == ["One"] * 2 + ["Two {"] * 2 + ["  Three"] * 2
    assert [record["index"] for record in records(result.stdout)] == list(range(6))


def test_several_prompts_as_json_lines_text_or_ids(gpt2lab) -> None:
    lines = '{"prompt": "One", "id": 7}\n{"prompt": [15496, 11]}\n\n{"prompt": ""}\n'
    result = gpt2lab("generate", "--prompts", "-", "--length", 1, "--json", "--model", TINY, input=lines)
    assert prompts_of(result) == ["One", [15496, 11], ""]
    plain = gpt2lab("generate", "--prompts", "-", "--length", 0, "--model", TINY, input=lines)
    assert plain.stdout == "".join(HEADER.format(n) + t + "\n" for n, t in enumerate(["One", "Hello,", ""], 1))


def test_a_model_without_a_tokenizer_takes_ids_and_gives_the_originals(gpt2lab) -> None:
    numbers = np.load(GOLDEN / "odd" / "golden.npz")
    prompt, expected = numbers["greedy_prompt"][0].tolist(), numbers["greedy_tokens"][0].tolist()
    flags = ("generate", "--prompts", "-", "--temperature", 0, "--length", 35, "--model", ODD)
    result = gpt2lab(*flags, "--json", input=json.dumps({"prompt": prompt}))
    assert records(result.stdout)[0]["tokens"] == expected[5:]
    plain = gpt2lab(*flags, input=json.dumps({"prompt": prompt}))
    assert plain.stdout == HEADER.format(1) + " ".join(map(str, expected)) + "\n"


# ---- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "-1"], "temperature must be 0"),
        (["--temperature", "nan"], "temperature must be 0"),
        (["--top_k", "-1"], "top_k must be 0"),
        (["--top_p", "1.5"], "top_p must be between 0 and 1"),
        (["--length", "-1"], "length must be at least 0, got -1"),
        (["--length", "65"], "room for 64, not 65: ask for fewer, or let the context slide"),
        (["--length", "many"], "'many' is not a valid integer"),
        (["--nsamples", "-1"], "Invalid value for '--nsamples'"),
        (["--batch_size", "0"], "batch_size must be at least 1, got 0"),
        (["--seed", "-1"], "seed must be at least 0, got -1"),
        (["--seed", "99999999999999999999"], "seed must be below 2^63"),
        (["--stop", ""], "stop strings must be non-empty text"),
        (["--overflow", "wrap"], "Invalid value for '--overflow'"),
        (["--threads", "0"], "threads must be at least 1, got 0"),
        (
            ["--device", "tpu"],
            "device 'tpu' is not available: choose one of cpu, cuda, mps, auto, reference, torch-cpu",
        ),
        (["--no_such_flag"], "No such option"),
        (["x", "--prompt_file", "y"], "give only one of PROMPT, --prompt_file and --prompts"),
        (["--prompt_file", "no/such/file"], "cannot read no/such/file: No such file or directory"),
        (["--prompts", os.devnull], "contains no prompts"),
        (["--prompt_file", ""], "cannot read ''"),
        (["--prompts", ""], "a path of the dataset is empty"),
        (["--out", "no/such/folder/file"], "cannot write no/such/folder/file: No such file or directory"),
        (["--prompt_file", str(GOLDEN / "tiny" / "golden.npz")], "is a binary file, not text"),
        (["x " * 100], "the prompt has 101 tokens, more than the model's context of 64"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_status_2(gpt2lab, arguments: list[str], message: str) -> None:
    result = gpt2lab("generate", "--model", TINY, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("gpt2lab: error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[]",
        '{"prompt": ',
        '{"text": 1}',
        '{"prompt": 5}',
        '{"prompt": null}',
        '{"prompt": [true]}',
        '{"prompt": [1.5]}',
        '{"prompt": ["a"]}',
        pytest.param('{"prompt": ' + "[" * 100_000, id="deep"),
    ],
)
def test_bad_json_lines_are_named_by_line(gpt2lab, line: str) -> None:
    for lines, number in ((f'{{"prompt": "a"}}\n{line}\n', 2), (f'\n{line}\n{{"prompt": "a"}}', 2)):
        result = gpt2lab("generate", "--prompts", "-", "--model", TINY, input=lines)
        assert result.exit_code == 2
        assert f"line {number}: not a JSON object" in result.stderr


def test_lines_without_a_prompt_key_are_text_even_if_they_are_json(gpt2lab) -> None:
    lines = ["{", "[[" * 50_000, '{"a": 1}', "5"]
    flags = ("--length", 0, "--overflow", "slide", "--json", "--model", TINY)
    assert prompts_of(gpt2lab("generate", "--prompts", "-", *flags, input="\n".join(lines))) == lines


def test_samples_without_end_are_for_one_prompt(gpt2lab) -> None:
    result = gpt2lab("generate", "--prompts", "-", "--nsamples", 0, "--model", TINY, input="a\nb\n")
    assert result.exit_code == 2
    assert "exactly one prompt, got 2" in result.stderr


def test_a_model_that_is_not_there_is_a_mistake(gpt2lab, tmp_path) -> None:
    result = gpt2lab("generate", "--model", tmp_path / "nothing")
    assert result.exit_code == 2
    assert str(tmp_path / "nothing") in result.stderr


# ---- files, pipes, signals ------------------------------------------------------------------------------------------


def test_out_appends_and_leaves_standard_output_empty(gpt2lab, tmp_path) -> None:
    flags = ("generate", "A", "--length", 3, "--seed", 1, "--model", TINY)
    printed = gpt2lab(*flags).stdout
    (tmp_path / "out.txt").write_text("kept\n")
    for _ in range(2):
        result = gpt2lab(*flags, "--out", tmp_path / "out.txt")
        assert result.stdout == ""
        assert result.stderr == f"gpt2lab: seed 1\ngpt2lab: 1 sample appended to {tmp_path / 'out.txt'}\n"
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == "kept\n" + printed * 2


def start(*arguments: str, **more) -> subprocess.Popen:
    command = [sys.executable, "-m", "gpt2lab", *arguments, "--model", TINY]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)


def test_output_is_utf8_whatever_the_locale() -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"}
    process = start("generate", "--length", "0", "--json", "--prompts", "-", stdin=subprocess.PIPE, env=environment)
    out, _ = process.communicate('{"prompt": "😀 é"}\n'.encode())
    assert json.loads(out.decode("utf-8"))["prompt"] == "😀 é"


@needs.mark("POSIX")
@pytest.mark.parametrize("more", [["--json"], [], ["--batch_size", "1"]])
def test_a_reader_that_leaves_ends_it_quietly(more: list[str]) -> None:
    process = start("generate", "--nsamples", "0", "--length", "8", *more)
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 141
    assert re.fullmatch(rb"gpt2lab: seed \d+\n", process.stderr.read())


@needs.mark("POSIX")
@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("generate --length 0 >&-", 2, "gpt2lab: error: standard output is closed"),
        ("generate --length 0 --nsamples 2 >&-", 2, "gpt2lab: error: standard output is closed"),
        ("generate --length 0 - <&-", 2, "gpt2lab: error: cannot read standard input"),
        ("generate --length 0 <&-", 0, "gpt2lab: seed"),
        ("generate --length 0 2>&-", 0, "SAMPLE 1"),
        ("generate --length 0 --top_k -1 2>&-", 2, ""),
        ("interactive --length 0 <&-", 2, "gpt2lab: error: standard input is closed"),
        ("next a | true", 141, ""),
    ],
)
def test_streams_that_are_closed_are_no_traceback(arguments: str, status: int, message: str) -> None:
    command, _, redirection = arguments.rpartition(" " if "|" not in arguments else " |")
    line = f"{sys.executable} -m gpt2lab {command} --model {TINY} {'|' if '|' in arguments else ''}{redirection}"
    result = subprocess.run(["bash", "-c", "set -o pipefail; " + line], capture_output=True, text=True, timeout=60)
    said = result.stdout + result.stderr
    assert result.returncode == status
    assert "Traceback" not in said
    assert message in said if message else not said


@needs.mark("/dev/full")
def test_a_full_disk_is_one_line_that_names_the_file(gpt2lab) -> None:
    result = gpt2lab("generate", "--length", 0, "--model", TINY, "--out", "/dev/full", "--seed", 1)
    assert result.exit_code == 2
    assert result.stderr == "gpt2lab: seed 1\ngpt2lab: error: cannot write /dev/full: No space left on device\n"


@needs.mark("POSIX")
def test_being_terminated_ends_it_quietly(tmp_path) -> None:
    process = start("generate", "--nsamples", "0", "--length", "8", "--json")
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert b"Traceback" not in errors


@needs.mark("POSIX")
def test_ctrl_c_loses_no_finished_sample(tmp_path) -> None:
    out = tmp_path / "out.jsonl"
    process = start("generate", "--nsamples", "0", "--length", "8", "--seed", "1", "--json", "--out", str(out))
    deadline = time.monotonic() + 60
    while not (out.exists() and out.stat().st_size > 2000) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    lines = records(out.read_text(encoding="utf-8"))
    indices = [record["index"] for record in lines]
    assert indices == sorted(set(indices))
    assert len(lines) > 5
    assert f"gpt2lab: {len(lines):,} samples appended to {out}\n".encode() in errors


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit(143)])
def test_samples_that_wait_for_an_earlier_one_are_written_when_it_is_stopped(gpt2lab, tmp_path, monkeypatch, stop):
    def pieces(*_, **more):
        for index in (2, 1):
            yield Piece(index, "A", "", Completion("A", f"-{index}", [], None, 1, index, "stop"))
        raise stop

    monkeypatch.setattr(package.LanguageModel, "pieces", pieces)
    out = tmp_path / "out.jsonl"
    result = gpt2lab("generate", "A", "--nsamples", 0, "--seed", 1, "--json", "--model", TINY, "--out", out)
    assert result.exit_code == (130 if stop is KeyboardInterrupt else 143)
    assert [record["completion"] for record in records(out.read_text())] == ["-1", "-2"]
    assert result.stderr.splitlines()[:2] == ["gpt2lab: seed 1", f"gpt2lab: 2 samples appended to {out}"]


@needs.mark("POSIX")
def test_ctrl_c_in_a_streamed_sample_ends_its_line() -> None:
    process = start("generate", "--nsamples", "0", "--batch_size", "1", "--overflow", "slide", "--length", "1000000")
    assert process.stdout is not None
    start_of_text = os.read(process.stdout.fileno(), 95)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert start_of_text.startswith(b"=" * 40 + b" SAMPLE 1 ")
    assert (start_of_text + rest).endswith(b"\n")
    assert b"Traceback" not in errors
