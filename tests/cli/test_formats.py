"""The same text in every format, to every command that reads text: the same tokens."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import needs

TINY = Path(__file__).parents[1] / "golden" / "tiny"
TEXT = 'Käthe, a miller, said: "No\tgoose\nhas an opinion."\nThat was all.\n'


def rows(delimiter: str = ",") -> bytes:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows([["id", "text"], ["1", TEXT]])
    return out.getvalue().encode()


def zipped(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, data)
        archive.writestr("__MACOSX/._" + name, b"\0\5\x16\7")
        archive.writestr("._" + name, b"\0\5\x16\7")
    return out.getvalue()


def record(**more: object) -> str:
    return json.dumps({"n": 1, "text": TEXT, **more})


FORMATS: dict[str, tuple[str, Callable[[], bytes], tuple[str, ...]]] = {
    "text": ("a.txt", TEXT.encode, ()),
    "any ending": ("a.xyz", TEXT.encode, ()),
    "byte-order mark": ("a.txt", lambda: TEXT.encode("utf-8-sig"), ()),
    "line ends of Windows": ("a.txt", lambda: TEXT.replace("\n", "\r\n").encode(), ()),
    "line ends of old Macs": ("a.txt", lambda: TEXT.replace("\n", "\r").encode(), ()),
    "utf16": ("a.txt", lambda: TEXT.encode("utf-16"), ("--encoding", "utf16")),
    "latin-1": ("a.txt", lambda: TEXT.encode("latin-1"), ("--encoding", "latin-1")),
    "gzip": ("a.txt.gz", lambda: gzip.compress(TEXT.encode()), ()),
    "zip": ("a.zip", lambda: zipped("a.txt", TEXT.encode()), ()),
    "JSON lines": ("a.jsonl", record().encode, ()),
    "JSON lines by another name": ("a.ndjson", lambda: b"\xef\xbb\xbf" + record().encode() + b"\r\n", ()),
    "JSON lines, a field": ("a.jsonl", lambda: record(body=TEXT, text="no").encode(), ("--field", "body")),
    "JSON array": ("a.json", lambda: f"[\n{record()}\n]".encode(), ()),
    "CSV": ("a.csv", rows, ()),
    "CSV, a column": ("a.csv", rows, ("--column", "2")),
    "CSV with semicolons": ("a.csv", lambda: rows(";"), ()),
    "CSV in gzip": ("a.csv.gz", lambda: gzip.compress(rows()), ()),
}


def tokens_of(gpt2lab, command: str, path: Path, options: tuple[str, ...]) -> int:
    """Return the number of tokens that a command reads from a file."""
    model = ("--model_name", TINY)
    if command == "encode":
        out = path.parent / "out"
        result = gpt2lab("encode", path, out, *options, *model)
        assert result.exit_code == 0, result.stderr
        path, options, command = out, (), "inspect"
    arguments = {
        "inspect": ("inspect", path, "--batch", 0, "--json"),
        "eval": ("eval", "perplexity", "--data", path, "--json"),
        "score": ("score", path, "--json"),
        "explore": ("explore", "score", path, "--json"),
    }[command]
    result = gpt2lab(*arguments, *options, *model)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    if command == "explore":
        return len(found["readings"])
    counts = {"inspect": found, "eval": found.get("counts", {}), "score": {"tokens": found.get("n_tokens")}}
    return counts[command]["tokens"]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("command", ["inspect", "encode", "eval", "score", "explore"])
def test_every_command_reads_the_same_tokens_from_every_format(gpt2lab, tmp_path, command, form):
    (tmp_path / "plain.txt").write_bytes(TEXT.encode())
    expected = tokens_of(gpt2lab, "inspect", tmp_path / "plain.txt", ())
    name, content, options = FORMATS[form]
    (tmp_path / name).write_bytes(content())
    assert tokens_of(gpt2lab, command, tmp_path / name, options) == expected


@pytest.mark.parametrize("command", ["inspect", "eval", "score", "explore"])
@pytest.mark.parametrize("out", ["a.tokens", "a.npz"])
def test_every_command_reads_what_encode_wrote(gpt2lab, tmp_path, command, out):
    (tmp_path / "plain.txt").write_bytes(TEXT.encode())
    expected = tokens_of(gpt2lab, "inspect", tmp_path / "plain.txt", ())
    assert gpt2lab("encode", tmp_path / "plain.txt", tmp_path / out, "--model_name", TINY).exit_code == 0
    assert tokens_of(gpt2lab, command, tmp_path / out, ()) == expected


@pytest.mark.parametrize("command", ["inspect", "encode", "eval", "score", "explore"])
def test_every_command_reads_parquet(gpt2lab, tmp_path, command):
    pyarrow = needs.package("pyarrow")
    (tmp_path / "plain.txt").write_bytes(TEXT.encode())
    table = pyarrow.Table.from_pylist([{"n": 1, "body": TEXT}])
    importlib.import_module("pyarrow.parquet").write_table(table, tmp_path / "a.parquet")
    expected = tokens_of(gpt2lab, "inspect", tmp_path / "plain.txt", ())
    assert tokens_of(gpt2lab, command, tmp_path / "a.parquet", ("--column", "body")) == expected


@pytest.mark.parametrize("command", ["inspect", "encode", "eval", "score", "explore"])
def test_every_command_chooses_among_the_files_of_a_folder(gpt2lab, tmp_path, command):
    (tmp_path / "plain.txt").write_bytes(TEXT.encode())
    expected = tokens_of(gpt2lab, "inspect", tmp_path / "plain.txt", ())
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a.py", "b.py", "c.txt"):
        (folder / name).write_bytes(TEXT.encode())
    options = ("--include", "*.py", "--include", "*.txt", "--exclude", "b.*", "--exclude", "c.*")
    assert tokens_of(gpt2lab, command, folder, options) == expected


def test_eval_and_score_agree_on_documents_with_prompts(gpt2lab, tmp_path):
    lines = [{"prompt": "Who slept?", "completion": " Nobody did."}, {"prompt": "Who ate?", "completion": " A wolf."}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    model = ("--model_name", TINY)
    score = json.loads(gpt2lab("score", tmp_path / "a.jsonl", "--json", *model).stdout)
    found = json.loads(gpt2lab("eval", "perplexity", "--data", tmp_path / "a.jsonl", "--json", *model).stdout)
    assert found["counts"] == {"bytes": len(" Nobody did. A wolf."), "tokens": score["n_tokens"]}
    assert found["figures"][0]["value"] == pytest.approx(score["perplexity"], rel=1e-5)


@pytest.mark.parametrize("content", [TEXT.encode("utf-8-sig"), TEXT.replace("\n", "\r\n").encode()])
def test_a_prompt_is_read_like_a_training_text(gpt2lab, tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    line = gpt2lab(
        "generate", "--prompt_file", tmp_path / "a.txt", "--length", 1, "--json", "--model_name", TINY
    ).stdout
    assert json.loads(line)["prompt"] == TEXT.removesuffix("\n")


PROMPT_FILES = [
    ("a.txt", b"One\n\nTwo\n", ()),
    ("a.txt", "One\r\nTwo\r\n".encode("utf-16"), ("--encoding", "utf16")),
    ("a.txt.gz", gzip.compress(b"One\nTwo\n", mtime=0), ()),
    ("a.zip", zipped("a.csv", b"n,prompt\n1,One\n2,Two\n"), ()),
    ("a.txt", b'{"prompt": "One"}\n{"prompt": "Two"}', ()),
    ("a.ndjson", b'{"prompt": "One"}\n{"prompt": "Two"}', ()),
    ("a.jsonl", b'{"q": "One"}\n{"q": "Two"}', ("--field", "q")),
    ("a.jsonl", b'{"prompt": "One"}\n[]\n{"prompt": "Two"}', ("--errors", "skip")),
    ("a.json", b'[{"prompt": "One"}, {"prompt": "Two"}]', ()),
    ("a.json", b'[{"q": "One"},\n{"q": "Two"}]', ("--field", "q")),
    ("a.csv", b"id, prompt\n1,One\n2,Two\n", ()),
    ("a.csv", b"id, prompt\n1,One\n2,too,many\n3,Two\n", ("--errors", "skip")),
    ("a.tsv", b"id\tbody\n1\tOne\n2\tTwo\n", ("--column", "body")),
]


@pytest.mark.parametrize(("name", "content", "options"), PROMPT_FILES)
def test_prompts_are_read_from_every_format(gpt2lab, tmp_path, name, content, options):
    (tmp_path / name).write_bytes(content)
    assert prompts_of(gpt2lab, tmp_path / name, options) == ["One", "Two"]


def test_prompts_are_read_from_a_folder(gpt2lab, tmp_path):
    (tmp_path / "a.csv").write_text("id,prompt\n1,One\n")
    (tmp_path / "b.jsonl").write_text('{"prompt": "Two"}')
    (tmp_path / "c.txt").write_text("Three")
    assert prompts_of(gpt2lab, tmp_path, ("--exclude", "c.*")) == ["One", "Two"]


def test_prompts_are_read_from_parquet(gpt2lab, tmp_path):
    table = needs.package("pyarrow").Table.from_pylist([{"n": 1, "prompt": "One"}, {"n": 2, "prompt": "Two"}])
    importlib.import_module("pyarrow.parquet").write_table(table, tmp_path / "a.parquet")
    assert prompts_of(gpt2lab, tmp_path / "a.parquet", ()) == ["One", "Two"]


def test_prompts_in_a_json_array_may_be_token_ids(gpt2lab, tmp_path):
    (tmp_path / "a.json").write_text('[{"prompt": [464]}]')
    assert prompts_of(gpt2lab, tmp_path / "a.json", ()) == [[464]]


def prompts_of(gpt2lab, path: Path, options: tuple[str, ...]) -> list[str]:
    """The prompts that generate reads from a file."""
    result = gpt2lab("generate", "--prompts", path, *options, "--length", 0, "--json", "--model_name", TINY)
    assert result.exit_code == 0, result.stderr
    return [json.loads(line)["prompt"] for line in result.stdout.splitlines()]


UNUSABLE = [
    ("a.jsonl", b'{"prompt": "One"}\n{"q": "Two"}', (), 'a.jsonl, line 2: not a JSON object with "prompt" (text or'),
    ("a.jsonl", b'{"q": "One"}', (), "--field names another"),
    ("a.json", b'[{"prompt": "One"},\n3]', (), 'a.json, line 2: not a JSON object with "prompt"'),
    ("a.json", b'[{"prompt": "\\ud800"}]', (), "a.json, line 1: an unpaired surrogate"),
    ("a.csv", b"id,prompt\n1,One\n2,too,many\n" + b"3,Three\n" * 500, (), "1 of 502 rows skipped, at line 3"),
    ("a.csv", b"id,body\n1,One\n", (), "has no column 'prompt'"),
    ("a.txt", b"caf\xe9", (), "give its --encoding"),
    ("a.npz", b"", (), "contains tokens, not prompts"),
]


@pytest.mark.parametrize(("name", "content", "options", "message"), UNUSABLE)
def test_an_unusable_prompt_is_an_error_at_its_line(gpt2lab, tmp_path, name, content, options, message):
    (tmp_path / name).write_bytes(content)
    result = gpt2lab("generate", "--prompts", tmp_path / name, *options, "--model_name", TINY)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize("options", [("x", "--encoding", "latin-1"), ("-", "--column", "a"), ("--field", "a")])
def test_options_for_reading_prompts_need_a_file(gpt2lab, options):
    result = gpt2lab("generate", *options, "--model_name", TINY, input="x")
    assert result.exit_code == 2
    assert "needs --prompts" in result.stderr


def test_a_prompt_file_may_have_another_encoding(gpt2lab, tmp_path):
    (tmp_path / "a.txt").write_bytes("é".encode("latin-1"))
    flags = ("--length", 0, "--json", "--model_name", TINY)
    result = gpt2lab("generate", "--prompt_file", tmp_path / "a.txt", "--encoding", "latin-1", *flags)
    assert json.loads(result.stdout)["prompt"] == "é"
