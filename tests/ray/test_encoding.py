"""``gpt2lab encode --ray``: the same shards as without it; Ray itself only in the slow tests."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import needs
from gpt2lab.data import encoding as data_encoding
from gpt2lab.data.encoding import encode_batch
from gpt2lab.data.files import Source
from gpt2lab.data.pieces import Piece
from gpt2lab.jobs import encoding
from gpt2lab.jobs.cluster import Row
from gpt2lab.tokenizer import Tokenizer

ODD = Path(__file__).parents[1] / "golden" / "odd"


@pytest.fixture
def texts(gpt2lab, tmp_path) -> Path:
    """Provide a folder with text, records, prompts, a table and tokens."""
    folder = tmp_path / "texts"
    folder.mkdir()
    draw = random.Random(1)
    words = ["the king", ",", " said\n", "日本", "é", " slept.", "  ", "<|endoftext|>"]
    for name in "abc":
        (folder / f"{name}.txt").write_text("".join(draw.choices(words, k=2000)))
    (folder / "d.jsonl").write_text("".join(json.dumps({"text": " so" * n}) + "\n" for n in range(99)) + "broken\n")
    (folder / "e.jsonl").write_text('{"prompt": "Who?", "completion": " Me."}\n' * 9)
    (folder / "f.csv").write_text("id,text\n1,one\n2,two\n")
    assert gpt2lab("encode", folder / "a.txt", folder / "g.npz").exit_code == 0
    (folder / "h.txt").write_text("The end.")
    return folder


@pytest.fixture
def in_process(monkeypatch):
    """Run the stages here, one row after another; return the numbers of the rows given."""
    worked: list[int] = []

    def rows(_, given, stages, *, in_order):
        assert in_order
        workers = [stage.make(**stage.arguments) for stage in stages]
        for row in given:
            worked.append(row.number)
            yield from through(row, workers)

    def through(row, workers):
        if not workers or row.kind:
            yield row
            return
        for made in workers[0](row.number, row.data):
            yield from through(Row(*made), workers[1:])

    monkeypatch.setattr(encoding, "rows", rows)
    monkeypatch.setattr(encoding, "connected", lambda address: nullcontext())
    return worked


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("part_bytes", [1, 5000, 10**9])
@pytest.mark.parametrize("shard_tokens", [50, 10**6])
def test_shards_are_the_same_bytes(gpt2lab, texts, tmp_path, in_process, monkeypatch, part_bytes, shard_tokens):
    monkeypatch.setattr(encoding, "PART_BYTES", part_bytes)
    monkeypatch.setattr(data_encoding, "BLOCK", 1000)
    here = gpt2lab("encode", texts, tmp_path / "here", "--shard_tokens", shard_tokens)
    ray = gpt2lab("encode", texts, tmp_path / "ray", "--shard_tokens", shard_tokens, "--ray")
    assert ray.exit_code == 0, ray.output
    assert files_in(tmp_path / "ray") == files_in(tmp_path / "here")
    assert ray.stdout == here.stdout.replace("here", "ray")
    assert ray.stderr == here.stderr
    assert in_process
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "ray", "texts"]


def test_an_npz_is_the_same_bytes(gpt2lab, texts, tmp_path, in_process):
    for name, more in (("here", ()), ("ray", ("--ray",))):
        assert gpt2lab("encode", texts / "a.txt", texts / "f.csv", tmp_path / f"{name}.npz", *more).exit_code == 0
    assert (tmp_path / "ray.npz").read_bytes() == (tmp_path / "here.npz").read_bytes()
    assert in_process


def test_a_checkpoints_own_vocabulary_goes_along(gpt2lab, texts, tmp_path, in_process):
    shutil.copytree(ODD, tmp_path / "model")
    spelled = list(Tokenizer.gpt2().encoder())[:256]
    (tmp_path / "model" / "encoder.json").write_text(json.dumps({token: id for id, token in enumerate(spelled)}))
    (tmp_path / "model" / "vocab.bpe").write_text("#version: 0.2\n")
    for name, more in (("here", ("--jobs", 1)), ("ray", ("--ray",))):
        flags = ("--model_name", tmp_path / "model")
        assert gpt2lab("encode", texts / "a.txt", tmp_path / name, *flags, *more).exit_code == 0
    assert files_in(tmp_path / "ray") == files_in(tmp_path / "here")


def test_what_an_interrupted_run_encoded_is_not_encoded_again(gpt2lab, texts, tmp_path, in_process, monkeypatch):
    monkeypatch.setattr(encoding, "PART_BYTES", 1)
    whole = encoding.rows

    def rows(*arguments, **more):
        for row in whole(*arguments, **more):
            if row.number == 3:
                raise KeyboardInterrupt
            yield row

    with monkeypatch.context() as patch:
        patch.setattr(encoding, "rows", rows)
        assert gpt2lab("encode", texts, tmp_path / "out", "--ray").exit_code == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.parts", "texts"]
    in_process.clear()
    result = gpt2lab("encode", texts, tmp_path / "out", "--ray")
    assert result.exit_code == 0, result.output
    assert "gpt2lab: 3 of 8 parts are already complete\n" in result.stderr
    assert in_process == [3, 4, 5, 6, 7]
    gpt2lab("encode", texts, tmp_path / "here")
    assert files_in(tmp_path / "out") == files_in(tmp_path / "here")
    assert not (tmp_path / "out.parts").exists()


def test_what_was_encoded_of_other_files_is_not_taken(gpt2lab, texts, tmp_path, in_process, monkeypatch):
    monkeypatch.setattr(encoding, "PART_BYTES", 1)
    (texts / "z.txt").write_bytes(b"\xff")
    assert gpt2lab("encode", texts, tmp_path / "out", "--ray").exit_code == 2
    (texts / "z.txt").write_text("Now it is text.")
    in_process.clear()
    assert gpt2lab("encode", texts, tmp_path / "out", "--ray").exit_code == 0
    assert len(in_process) == 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-", "{out}", "--ray"), "--ray reads in other processes, which cannot read this one's standard input"),
        (("{texts}", "{out}", "--ray", "--jobs", 2), "--jobs applies only without --ray: give --workers instead"),
        (("{texts}", "{out}", "--workers", 2), "--workers needs --ray"),
        (("{texts}", "{texts}/x/../a.txt", "--ray"), "a.txt"),
        (("{bad}", "{out}", "--ray"), "bad.txt is not UTF-8 text (byte 0, line 1)"),
        (("{empty}", "{out}", "--ray"), "the dataset is empty"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(gpt2lab, texts, tmp_path, in_process, arguments, message):
    names = {"texts": texts, "out": tmp_path / "out", "bad": tmp_path / "bad.txt", "empty": tmp_path / "empty.txt"}
    names["bad"].write_bytes(b"\xff")
    names["empty"].write_bytes(b"")
    result = gpt2lab("encode", *(str(argument).format(**names) for argument in arguments))
    assert result.exit_code == 2
    assert message in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.txt", "empty.txt", "texts"]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.integers(1, 60))
def test_every_file_is_in_one_part_in_order(sizes, part_size):
    kinds = ["npz" if size % 7 == 0 else "text" for size in sizes]
    sources = [
        Source(str(n), kind, Path(str(n)), size) for n, (kind, size) in enumerate(zip(kinds, sizes, strict=True))
    ]
    parts = encoding.parts_of(sources, part_size)
    assert [source for part in parts for source in part] == sources
    assert all(len({source.kind == "npz" for source in part}) == 1 for part in parts)
    assert all(sum(source.size for source in part[:-1]) < part_size for part in parts)


@given(st.lists(st.lists(st.tuples(st.text(max_size=5), st.booleans(), st.booleans()), min_size=1), max_size=4))
def test_tokens_come_back_as_they_were_written(tmp_path_factory, batches):
    path = tmp_path_factory.mktemp("part") / "part"
    tokenizer = Tokenizer.gpt2()
    written = [encode_batch(tokenizer, [Piece(*piece) for piece in batch]) for batch in batches]
    path.write_bytes(b"".join(map(encoding.write_encoded, written)))
    with path.open("rb") as file:
        read = list(encoding.read_encoded(file))
    assert len(read) == len(written)
    for before, after in zip(written, read, strict=True):
        for name in ("ids", "lengths", "characters", "ends", "trained", "n_bytes"):
            assert getattr(before, name).dtype == getattr(after, name).dtype
            assert getattr(before, name).tolist() == getattr(after, name).tolist()


# ---- with Ray -------------------------------------------------------------------------------------------------------


@needs.mark("ray", "Linux")
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_that_is_killed_loses_and_doubles_no_token(start, gpt2lab, texts, tmp_path, ray_workers, ended):
    draw = random.Random(2)
    words = [" the", " king", ",", " said\n", " 日本", " é", " slept."]
    for number in range(8):
        (texts / f"large{number}.txt").write_text("".join(draw.choices(words, k=600_000)))
    process = start("encode", texts, tmp_path / "ray", "--ray", "--workers", 2, "--shard_tokens", 200_000)
    killed: set[int] = set()
    while process.poll() is None and len(killed) < 2:  # one that encodes, then one that reads or encodes
        for pid in sorted(set(ray_workers(process)) - killed)[-1 if killed else 0 :][:1]:
            if list(tmp_path.glob("ray.parts/.part-*")):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        time.sleep(0.05)
    _, errors = process.communicate(timeout=580)
    ended(errors)
    assert process.returncode == 0, errors
    assert killed
    assert gpt2lab("encode", texts, tmp_path / "here", "--shard_tokens", 200_000).exit_code == 0
    assert files_in(tmp_path / "ray") == files_in(tmp_path / "here")


@needs.mark("ray")
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_a_worker_cannot_read_is_one_line(start, tmp_path, ended):
    (tmp_path / "bad.txt").write_bytes(b"fine until here\xff")
    process = start("encode", tmp_path / "bad.txt", tmp_path / "out", "--ray")
    _, errors = process.communicate(timeout=580)
    ended(errors)
    assert process.returncode == 2
    assert errors.splitlines()[-1].startswith(f"gpt2lab: error: {tmp_path / 'bad.txt'} is not UTF-8 text (byte 15,")
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["bad.txt"]
