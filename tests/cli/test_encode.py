"""``gpt2lab encode`` and ``gpt2lab inspect``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import needs
from gpt2lab.data.open import open_documents
from gpt2lab.tokenizer import Tokenizer

ODD = Path(__file__).parents[1] / "golden" / "odd"


def documents_in(path):
    found = open_documents([str(path)], Tokenizer.gpt2())
    return [Tokenizer.gpt2().decode(found[index].tolist()) for index in range(len(found))]


@pytest.fixture
def stories(tmp_path):
    folder = tmp_path / "stories"
    folder.mkdir()
    (folder / "a.txt").write_text("Once upon a time.\n")
    (folder / "b.jsonl").write_text('{"text": "The end."}\n{"text": null}\n')
    return folder


# ---- encode ---------------------------------------------------------------------------------------------------------


def test_a_folder_becomes_tokens(gpt2lab, stories, tmp_path):
    result = gpt2lab("encode", stories, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "out: 9 tokens, documents: 2, from 26 bytes; 1 file" in result.stdout
    assert "b.jsonl: 1 of 2 records skipped, at line 2: 1 empty" in result.stderr
    assert documents_in(tmp_path / "out") == ["Once upon a time.\n", "The end."]


def test_standard_input_is_text_unless_a_field_is_named(gpt2lab, tmp_path):
    for name, options in (("plain", ()), ("json", ("--field", "a"))):
        assert gpt2lab("encode", "-", tmp_path / name, *options, input='{"a": "é"}\n').exit_code == 0
    assert documents_in(tmp_path / "plain") == ['{"a": "é"}\n']
    assert documents_in(tmp_path / "json") == ["é"]


def test_an_npz_is_written_in_the_originals_form(gpt2lab, stories, tmp_path):
    assert gpt2lab("encode", stories, tmp_path / "out.npz").exit_code == 0
    with np.load(tmp_path / "out.npz") as arrays:
        (ids,) = (arrays[name].tolist() for name in arrays.files)
    assert Tokenizer.gpt2().decode(ids) == "Once upon a time.\n<|endoftext|>The end."
    assert documents_in(tmp_path / "out.npz") == ["Once upon a time.\n", "The end."]


@pytest.mark.parametrize("name", ["all.npz", "all.tokens"])
def test_encoding_a_folder_into_itself_again_gives_the_same_tokens(gpt2lab, stories, name):
    lines = {gpt2lab("encode", stories, stories / name, "--overwrite").stdout for _ in range(3)}
    assert len(lines) == 1 and lines != {""}


def test_shards_have_the_size_asked_for(gpt2lab, stories, tmp_path):
    assert "2 files" in gpt2lab("encode", stories, tmp_path / "out", "--shard_tokens", 1).stdout
    assert len(documents_in(tmp_path / "out")) == 2


def test_a_checkpoints_own_vocabulary_is_used(gpt2lab, stories, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(ODD, model)
    spelled = list(Tokenizer.gpt2().encoder())[:256]
    (model / "encoder.json").write_text(json.dumps({token: id for id, token in enumerate(spelled)}))
    (model / "vocab.bpe").write_text("#version: 0.2\n")
    result = gpt2lab("encode", stories, tmp_path / "out", "--model_name", model)
    assert "out: 26 tokens, documents: 2" in result.stdout
    assert gpt2lab("inspect", tmp_path / "out", "--model_name", model).exit_code == 0
    result = gpt2lab("inspect", tmp_path / "out")
    assert result.exit_code == 2
    assert "encoded with another vocabulary, of 256 tokens" in result.stderr
    result = gpt2lab("encode", stories, tmp_path / "out.npz", "--model_name", model)
    assert result.exit_code == 2
    assert "no <|endoftext|>" in result.stderr


def test_what_exists_is_kept_unless_told(gpt2lab, stories, tmp_path):
    for out in ("out", "out.npz"):
        assert gpt2lab("encode", stories / "a.txt", tmp_path / out).exit_code == 0
        result = gpt2lab("encode", stories, tmp_path / out)
        assert result.exit_code == 2
        assert f"{out} already exists; give another name or --overwrite" in result.stderr
        assert len(documents_in(tmp_path / out)) == 1
        assert gpt2lab("encode", stories, tmp_path / out, "--overwrite").exit_code == 0
        assert len(documents_in(tmp_path / out)) == 2


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.txt", b"", (), "the dataset is empty"),
        ("a.txt", b"a\0b", (), "a.txt is a binary file, not text (byte 1 is 0)"),
        ("a.txt", b"abc\xff", (), "a.txt is not UTF-8 text (byte 3, line 1)"),
        ("a.csv", b"id,body\n1,x y z\n", ("--column", "txt"), "a.csv has no column 'txt'"),
        ("a.jsonl", b'{"body": "x"}', (), "no text in field 'text'; fields with text: body (--field)"),
        ("a.txt.gz", b"\x1f\x8b\x08\x00", (), "the compressed data is damaged"),
        ("a.npz", b"x", (), "a.npz is not an .npz file"),
        ("a.txt", b"x", ("--encoding", "klingon"), "unknown encoding 'klingon'"),
    ],
)
@pytest.mark.parametrize("out", ["out", "out.npz"])
def test_what_cannot_be_encoded_is_said_in_a_line_and_leaves_nothing(
    gpt2lab, tmp_path, name, content, options, message, out
):
    (tmp_path / name).write_bytes(content)
    result = gpt2lab("encode", tmp_path / name, tmp_path / out, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("out", ["out", "out.npz"])
def test_a_place_that_cannot_be_written_is_named(gpt2lab, stories, out):
    result = gpt2lab("encode", stories, stories / "a.txt" / out)
    assert result.exit_code == 2
    assert "cannot write" in result.stderr
    assert "a.txt" in result.stderr


@pytest.mark.parametrize("out", ["", ".", "/"])
def test_a_place_without_a_name_is_refused(gpt2lab, stories, out):
    result = gpt2lab("encode", stories, out)
    assert result.exit_code == 2
    assert "is not a valid name for an encoded dataset" in result.stderr
    assert result.stderr.count("\n") == 1


def test_prompts_are_refused_where_they_could_not_be_told_from_what_is_learned(gpt2lab, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "why", "completion": " so"}')
    result = gpt2lab("encode", tmp_path / "a.jsonl", tmp_path / "out.npz")
    assert result.exit_code == 2
    assert ".npz cannot mark prompts as untrained: give OUT without .npz" in result.stderr
    assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_shards_are_not_encoded_again(gpt2lab, stories, tmp_path):
    gpt2lab("encode", stories, tmp_path / "out")
    result = gpt2lab("encode", tmp_path / "out", tmp_path / "again")
    assert result.exit_code == 2
    assert "is already encoded" in result.stderr


@needs.mark("POSIX")
def test_a_kill_leaves_no_dataset_and_the_next_run_cleans_up(gpt2lab, tmp_path):
    command = [sys.executable, "-m", "gpt2lab", "encode", "-", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    process.stdin.write(b"many words " * 100_000)
    process.stdin.flush()
    while not list(tmp_path.glob("out.gpt2lab.partial/*")):
        time.sleep(0.02)
    process.kill()
    process.wait()
    process.stdin.close()
    assert [path.name for path in tmp_path.iterdir()] == ["out.gpt2lab.partial"]
    assert gpt2lab("encode", "-", tmp_path / "out", input="text").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# ---- inspect --------------------------------------------------------------------------------------------------------


def test_counts_and_a_batch_are_shown_of_text_and_of_tokens_alike(gpt2lab, stories, tmp_path):
    gpt2lab("encode", stories, tmp_path / "out")
    of_text, of_tokens = (gpt2lab("inspect", path, "--block_size", 3) for path in (stories, tmp_path / "out"))
    assert of_text.exit_code == of_tokens.exit_code == 0
    assert of_text.stdout == of_tokens.stdout
    assert "documents  2, of 3 to 6 tokens, median 3\n" in of_text.stdout
    assert "bytes      26 of UTF-8: 0.346 tokens a byte, 2.89 bytes a token\n" in of_text.stdout
    assert "vocabulary 8 of 50,257 tokens occur; 100.0% never do\n" in of_text.stdout


def test_targets_are_the_next_tokens(gpt2lab, stories):
    shown = json.loads(gpt2lab("inspect", stories, "--batch", 3, "--block_size", 4, "--json").stdout)
    assert (shown["documents"], shown["tokens"], len(shown["windows"])) == (2, 9, 3)
    for window in shown["windows"]:
        assert window["tokens"][1:] == window["targets"][:-1]
        assert window["trained"] == [True] * 4


def test_what_bears_no_loss_stands_in_parentheses(gpt2lab, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "why", "completion": " so"}')
    result = gpt2lab("inspect", tmp_path / "a.jsonl", "--batch", 3, "--block_size", 1)
    assert "learned    1 tokens (50.0%); the others are read only" in result.stdout
    assert "('why')" in result.stdout


def test_the_order_of_windows_follows_the_seed(gpt2lab, tmp_path):
    (tmp_path / "a.txt").write_text(" ".join(map(str, range(500))))
    shown = [gpt2lab("inspect", tmp_path / "a.txt", "--seed", seed).stdout for seed in (1, 1, 2)]
    assert shown[0] == shown[1] != shown[2]


def test_nothing_to_inspect_is_an_error(gpt2lab, tmp_path):
    result = gpt2lab("inspect", tmp_path / "gone")
    assert result.exit_code == 2
    assert "gone" in result.stderr
