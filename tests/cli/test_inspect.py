"""``gpt2lab tokens``, ``next`` and ``score``: the same numbers as the Python API."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

import gpt2lab as package

TINY = str(Path(__file__).parents[1] / "golden" / "tiny")
ODD = str(Path(__file__).parents[1] / "golden" / "odd")


@pytest.fixture(scope="module")
def model() -> package.LanguageModel:
    return package.load(TINY)


def test_tokens_shows_ids_pieces_and_bytes(gpt2lab) -> None:
    result = gpt2lab("tokens", "Hello 😀")
    assert [re.sub(" +", " ", line).strip() for line in result.stdout.splitlines()] == [
        "15496 'Hello' 48 65 6c 6c 6f",
        r"30325 b' \xf0\x9f\x98' 20 f0 9f 98",
        r"222 b'\x80' 80",
        "3 tokens, 10 bytes",
    ]


def test_tokens_as_json(gpt2lab) -> None:
    record = json.loads(gpt2lab("tokens", "-", "--json", input="é!\n").stdout)
    assert record == {
        "text": "é!\n",
        "ids": [2634, 0, 198],
        "tokens": [
            {"id": 2634, "text": "é", "bytes": "c3a9"},
            {"id": 0, "text": "!", "bytes": "21"},
            {"id": 198, "text": "\n", "bytes": "0a"},
        ],
    }


def test_end_of_text_is_text_unless_asked_for(gpt2lab) -> None:
    assert gpt2lab("tokens", "<|endoftext|>").stdout.endswith("7 tokens, 13 bytes\n")
    assert gpt2lab("tokens", "<|endoftext|>", "--special").stdout.endswith("1 tokens, 13 bytes\n")


def test_tokens_of_a_models_vocabulary(gpt2lab) -> None:
    assert gpt2lab("tokens", "Hello", "--model_name", TINY).stdout == gpt2lab("tokens", "Hello").stdout
    result = gpt2lab("tokens", "Hello", "--model_name", ODD)
    assert result.exit_code == 2
    assert "has no tokenizer" in result.stderr


def test_next_shows_every_stage(gpt2lab, model) -> None:
    flags = ("next", "Hello", "--temperature", 0.7, "--top_k", 5, "--top", 3, "--model", TINY)
    result = gpt2lab(*flags)
    assert result.exit_code == 0
    expected = model.next_token("Hello", temperature=0.7, top_k=5, top=3)
    for stage in expected.stages:
        assert f"{stage.name}: {stage.kept:,} tokens" in result.stdout
        assert f"{stage.candidates[0].probability:.2%}" in result.stdout
    assert "█" * 40 in result.stdout
    record = json.loads(gpt2lab(*flags, "--json").stdout)
    assert record == json.loads(json.dumps(asdict(expected)))


def test_next_refuses_bad_values(gpt2lab) -> None:
    for flags, message in ((("--top", 0), "top must be at least 1"), (("--top_p", 2), "top_p must be")):
        result = gpt2lab("next", "Hello", "--model", TINY, *flags)
        assert result.exit_code == 2
        assert message in result.stderr


def test_score_of_text_file_and_standard_input_agree(gpt2lab, model, tmp_path) -> None:
    text = "A short text.\nOf two lines"
    (tmp_path / "text.txt").write_text(text, newline="")
    expected = model.score(text)
    results = [
        json.loads(gpt2lab("score", source, "--json", "--model", TINY, input=text).stdout)
        for source in (text, tmp_path / "text.txt", "-")
    ]
    assert results[0] == results[1] == results[2]
    assert results[0]["logprobs"] == expected.logprobs
    assert results[0]["perplexity"] == expected.perplexity
    assert results[0]["bits_per_byte"] == expected.bits_per_byte
    assert (results[0]["n_tokens"], results[0]["n_bytes"]) == (len(expected.tokens), len(text))


def test_score_prints_a_line_for_each_token_and_the_sums(gpt2lab, model) -> None:
    lines = gpt2lab("score", "Hello there", "--model", TINY).stdout.splitlines()
    expected = model.score("Hello there")
    assert lines[0] == f"{expected.logprobs[0]:9.4f}  'Hello'"
    assert lines[2] == "the argument: 2 tokens, 11 bytes"
    assert f"perplexity {expected.perplexity:.3f}" in lines[3]


def test_score_of_nothing_has_no_perplexity(gpt2lab) -> None:
    record = json.loads(gpt2lab("score", "", "--json", "--model", TINY).stdout)
    assert (record["n_tokens"], record["perplexity"], record["bits_per_byte"]) == (0, None, None)


@pytest.mark.parametrize("columns", [50, 80, 200])
def test_next_keeps_its_bars_in_proportion_in_a_narrow_terminal(gpt2lab, monkeypatch, columns) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = gpt2lab("next", "Hello", "--model", TINY, "--temperature", 0.01, "--top", 3).stdout.splitlines()
    bars = [line.count("█") for line in lines if "%" in line]
    assert all("…" not in line for line in lines if "█" in line)
    assert len(bars) == 6
    assert bars[3] > bars[5]
