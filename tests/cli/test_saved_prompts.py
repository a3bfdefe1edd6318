"""``--save_prompt`` and ``--load_prompt``: the same text, fewer tokens computed, other files refused."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from gpt2lab.engines.precision import KV_PRECISIONS
from gpt2lab.engines.reference import ReferenceEngine

GOLDEN = Path(__file__).parents[1] / "golden"
TINY = str(GOLDEN / "tiny")
LONG = "Once upon a time there was a king who had three daughters"
HOW = ("--model", TINY, "--device", "reference", "--seed", 1, "--length", 5)


@pytest.fixture
def saved(gpt2lab, tmp_path) -> Path:
    """Provide a file with the first twelve tokens of a text."""
    path = tmp_path / "king.prompt"
    result = gpt2lab("generate", LONG, *HOW, "--save_prompt", path)
    assert result.exit_code == 0, result.stderr
    assert f"gpt2lab: 12 tokens of the prompt saved to {path}\n" in result.stderr
    return path


def spoil(path: Path, **facts: str) -> None:
    """Replace texts of a file's header."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] |= facts
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


def refusal(gpt2lab, path: Path, *options: object) -> str:
    result = gpt2lab("generate", LONG, *(options or HOW), "--load_prompt", path)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    return line


def test_a_loaded_prompt_gives_the_same_text_and_only_the_rest_is_fed(gpt2lab, saved, monkeypatch) -> None:
    for prompt, n_fed in ((LONG, 1 + 4), (LONG + " and a horse", 3 + 4), ("Once upon a time there was a mouse", 1 + 4)):
        cold = gpt2lab("generate", prompt, *HOW)
        fed: list[int] = []
        feed = ReferenceEngine._feed
        with monkeypatch.context() as patch:
            patch.setattr(
                ReferenceEngine, "_feed", lambda self, s, ids, f=feed, n=fed: n.extend(ids) or f(self, s, ids)
            )
            warm = gpt2lab("generate", prompt, *HOW, "--load_prompt", saved)
        assert warm.exit_code == 0 and warm.stdout == cold.stdout
        assert len(fed) == n_fed, prompt


@pytest.mark.parametrize("kv_precision", KV_PRECISIONS)
def test_keys_and_values_of_every_precision_can_be_saved(gpt2lab, tmp_path, kv_precision: str) -> None:
    path, how = tmp_path / "king.prompt", ("--model", TINY, "--seed", 1, "--length", 5, "--kv_precision", kv_precision)
    if kv_precision == "bfloat16":
        how = (*how, "--precision", "bfloat16")
    cold = gpt2lab("generate", LONG, *how, "--save_prompt", path)
    warm = gpt2lab("generate", LONG, *how, "--load_prompt", path)
    assert warm.exit_code == 0, warm.stderr
    assert warm.stdout == cold.stdout


def test_a_prompt_can_be_loaded_and_a_longer_one_saved(gpt2lab, saved, tmp_path) -> None:
    longer = tmp_path / "longer.prompt"
    prompt = LONG + " and a horse"
    assert gpt2lab("generate", prompt, *HOW, "--load_prompt", saved, "--save_prompt", longer).exit_code == 0
    assert gpt2lab("generate", prompt, *HOW, "--save_prompt", saved).exit_code == 0
    assert longer.read_bytes() == saved.read_bytes()


@pytest.mark.parametrize("name", ["contract", "precision", "kv_precision", "processors"])
def test_a_prompt_of_another_origin_is_refused(gpt2lab, saved, name: str) -> None:
    spoil(saved, **{name: "other"})
    assert refusal(gpt2lab, saved).startswith(f"gpt2lab: error: {saved} has {name} 'other', not ")


def test_a_prompt_of_another_model_is_refused(gpt2lab, saved) -> None:
    other = ("--model", str(GOLDEN / "odd"), *HOW[2:])
    assert "is of another model: save the prompt again with --save_prompt" in refusal(gpt2lab, saved, *other)


@pytest.mark.parametrize("tokens", ["[1, 2]", "[]", "null", "[50257]", "1", "[" * 99999, '["a"]'])
def test_tokens_that_do_not_fit_the_numbers_are_refused(gpt2lab, saved, tokens: str) -> None:
    spoil(saved, tokens=tokens)
    assert "is damaged" in refusal(gpt2lab, saved)


def test_a_file_with_a_changed_bit_is_refused(gpt2lab, saved) -> None:
    good = saved.read_bytes()
    rng = random.Random(1)
    for _ in range(40):
        place = rng.choice([rng.randrange(len(good)), rng.randrange(600)])
        saved.write_bytes(good[:place] + bytes([good[place] ^ 1 << rng.randrange(8)]) + good[place + 1 :])
        refusal(gpt2lab, saved)


@pytest.mark.parametrize("size", [0, 7, 100, 5000, -1])
def test_a_file_cut_short_is_refused(gpt2lab, saved, size: int) -> None:
    saved.write_bytes(saved.read_bytes()[:size])
    refusal(gpt2lab, saved)


def test_a_file_of_another_kind_is_refused(gpt2lab, tmp_path) -> None:
    path = tmp_path / "text"
    path.write_text("Once upon a time")
    assert str(path) in refusal(gpt2lab, path)
    assert "cannot read" in refusal(gpt2lab, tmp_path / "nothing")
    assert "cannot read" in refusal(gpt2lab, tmp_path)


def test_what_cannot_be_saved_is_refused(gpt2lab, tmp_path) -> None:
    prompts = tmp_path / "prompts"
    prompts.write_text("one\ntwo\n")
    for options, error in (
        (("--prompts", prompts, "--save_prompt", "x"), "--save_prompt saves one prompt, got 2"),
        (("--prompts", prompts, "--out", "y", "--load_prompt", "x"), "cannot be used with both --prompts and --out"),
        (("a " * 100, "--save_prompt", "x"), "more than the model's context of 64"),
        (("a", "--save_prompt", tmp_path), "already exists"),
    ):
        result = gpt2lab("generate", *options, *HOW)
        assert result.exit_code == 2 and error in result.stderr and len(result.stderr.splitlines()) == 1
