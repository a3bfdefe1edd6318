"""Datasets that are damaged, hostile or absent: one line that names the file, and memory within bounds."""

import gzip
import io
import json
import os
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest

import needs
from gpt2lab.data import sources
from gpt2lab.data.encoding import encode_pieces
from gpt2lab.data.files import Reading
from gpt2lab.data.finding import find_sources
from gpt2lab.data.npz import read_npz
from gpt2lab.data.open import open_documents
from gpt2lab.data.pieces import MAX_RECORD, Piece
from gpt2lab.data.shards import new_shards, write_shards
from gpt2lab.data.sources import MAX_RUN, read_pieces
from gpt2lab.data.vocabulary import vocabulary_hash
from gpt2lab.errors import CheckpointError, UsageError

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 497759232\n"


def pieces(path, **reading):
    found = find_sources([str(path)], Reading(**reading))
    return [piece for source in found for piece in read_pieces(source, Reading(**reading), lambda line: None)]


def peak(function):
    """Return the most memory that Python held during a call, which must raise UsageError, and the message."""
    tracemalloc.start()
    try:
        with pytest.raises(UsageError) as caught:
            function()
        return tracemalloc.get_traced_memory()[1], str(caught.value)
    finally:
        tracemalloc.stop()


# ---- too much without a cut -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz", "a.json.gz", "a.csv.gz", "a.tsv.gz"])
def test_a_small_file_that_unpacks_to_one_endless_line_is_refused(tmp_path, name):
    before = {"jsonl": '{"text": "', "json": '[{"text": "', "csv": "text\n", "tsv": "text\n", "txt": ""}
    with gzip.open(tmp_path / name, "wt", compresslevel=1) as file:
        file.write(before[name.split(".")[1]])
        for _ in range(40):
            file.write("a" * (1 << 20))
    memory, message = peak(lambda: pieces(tmp_path / name))
    assert memory < 160 << 20
    assert message.startswith(str(tmp_path / name)) and ("16,777,216" in message or "4,194,304" in message)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_text_with_too_long_a_run_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr(sources, "MAX_RUN", 1 << 20)
    text = "a b " + "x" * (1 << 21) + " c"
    (tmp_path / name).write_text(json.dumps({"text": text}) if name.endswith("l") else text)
    with pytest.raises(UsageError, match="is hardly text: no space or sign follows a letter in 1,048,576 characters"):
        pieces(tmp_path / name)


def test_long_records_come_in_parts_that_encode_as_the_whole(tmp_path, gpt2):
    text = "It's a long, long record; 日本 😀 123 <|endoftext|>  \n" * 20_000
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": text, "completion": text}) + "\n")
    found = pieces(tmp_path / "a.jsonl")
    assert max(len(piece.text) for piece in found) <= 1 << 18
    assert "".join(piece.text for piece in found) == 2 * text
    assert [piece.trained for piece in found] == sorted(piece.trained for piece in found)
    assert [piece.ends for piece in found] == [False] * (len(found) - 1) + [True]
    learned = [piece.text for piece in found if piece.trained]
    assert [id for part in learned for id in gpt2.encode(part)] == gpt2.encode(text)


def test_text_with_runs_below_the_bound_is_read(tmp_path):
    text = "x" * (MAX_RUN // 8) + " y"
    (tmp_path / "a.txt").write_text(text)
    assert "".join(piece.text for piece in pieces(tmp_path / "a.txt")) == text


def test_a_record_may_have_many_megabytes(tmp_path):
    text = "word " * (MAX_RECORD // 10)
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}))
    assert "".join(piece.text for piece in pieces(tmp_path / "a.jsonl")) == text


# ---- archives -------------------------------------------------------------------------------------------------------


def test_a_member_without_a_name_is_left_out(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(""), "nameless")
        archive.writestr("a.txt", "named")
    assert [piece.text for piece in pieces(tmp_path / "a.zip")] == ["named"]


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_is_named(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("a.txt", os.urandom(1000).hex())
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[60:90] = b"\xff" * 30
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.zip"):
        pieces(tmp_path / "a.zip")


def test_a_member_that_asks_for_a_dictionary_of_gigabytes_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.txt", "some text")
    content = bytearray((tmp_path / "a.zip").read_bytes())
    assert "".join(piece.text for piece in pieces(tmp_path / "a.zip")) == "some text"
    at = 30 + len("a.txt") + 5
    content[at : at + 4] = (1 << 31).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.zip is damaged .*a dictionary of 2147483648 bytes"):
        pieces(tmp_path / "a.zip")


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_a_damaged_tar_is_named(tmp_path, suffix):
    with tarfile.open(tmp_path / f"a.tar.{suffix}", f"w:{suffix}") as archive:
        info = tarfile.TarInfo("a.txt")
        info.size = 20_000
        archive.addfile(info, io.BytesIO(os.urandom(10_000).hex().encode()))
    content = bytearray((tmp_path / f"a.tar.{suffix}").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 100] = b"\xff" * 100
    (tmp_path / f"a.tar.{suffix}").write_bytes(content)
    with pytest.raises(UsageError, match=rf"a\.tar\.{suffix}"):
        pieces(tmp_path / f"a.tar.{suffix}")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_name_that_would_fill_memory_is_refused(tmp_path, kind):
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, 1 << 29
    with gzip.open(tmp_path / "a.tar.gz", "wb", compresslevel=1) as file:
        file.write(header.tobuf())
        file.write(bytes(24 << 20))
    memory, message = peak(lambda: pieces(tmp_path / "a.tar.gz"))
    assert memory < 8 << 20 and "a.tar.gz" in message


# ---- pointers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv", "a.zip", "a.tar.gz", "a.npz", "a.txt.gz"])
def test_a_git_lfs_pointer_is_named(tmp_path, gpt2, name):
    (tmp_path / name).write_bytes(LFS)
    with pytest.raises(CheckpointError, match=rf"{name} is a Git LFS pointer, not the file itself: run git lfs pull"):
        open_documents([str(tmp_path / name)], gpt2)


def test_a_git_lfs_pointer_in_place_of_a_parquet_file_is_named(tmp_path, gpt2):
    needs.package("pyarrow")
    (tmp_path / "a.parquet").write_bytes(LFS)
    with pytest.raises(CheckpointError, match=r"a\.parquet is a Git LFS pointer"):
        open_documents([str(tmp_path / "a.parquet")], gpt2)


# ---- npz ------------------------------------------------------------------------------------------------------------


def npz(path, header, *, method=zipfile.ZIP_STORED):
    text = header.encode()
    body = b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + bytes(100)
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("arr_0.npy", body)
    return path


def refuses_npz(path, tokenizer):
    with pytest.raises(UsageError) as caught:
        list(read_npz(path, tokenizer))
    assert "a.npz" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<u2', 'fortran_order': False, 'shape': (1000000000000,)}",
        "{'descr': '<u2', 'fortran_order': False, 'shape': (-5,)}",
        "{'descr': '<u2', 'fortran_order': False, 'shape': (3",
        "{'descr': '<u2'}",
        "[" * 9000,
        "(((((((((1)" * 900,
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (3,)}",
        "{'descr': [('a', '<u2')], 'fortran_order': False, 'shape': (3,)}",
        "\0",
        "{'descr': '<u2', 'fortran_order': False, 'shape': (1e999,)}",
    ],
)
def test_an_npz_header_that_lies_is_refused(tmp_path, bytewise, header):
    refuses_npz(npz(tmp_path / "a.npz", header), bytewise)


@pytest.mark.parametrize("spoil", ["stream", "compression", "encrypted", "cut", "checksum"])
def test_a_damaged_npz_is_refused(tmp_path, bytewise, spoil):
    np.savez_compressed(tmp_path / "a.npz", np.random.default_rng(1).integers(0, 256, 1000))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    directory = content.rindex(b"PK\1\2")
    if spoil == "stream":
        content[200:260] = b"\xff" * 60
    elif spoil == "compression":
        content[8:10] = content[directory + 10 : directory + 12] = b"\x63\0"
    elif spoil == "encrypted":
        content[6] |= 1
        content[directory + 8] |= 1
    elif spoil == "checksum":
        content[14:16] = content[directory + 16 : directory + 18] = b"\0\0"
    else:
        del content[300:]
    (tmp_path / "a.npz").write_bytes(content)
    refuses_npz(tmp_path / "a.npz", bytewise)


# ---- shards ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def shard(tmp_path, gpt2):
    """The only file of a dataset of 10 documents, some of whose tokens are not learned."""
    stream = [Piece("one two three", False, False), Piece(" four five", True), *[Piece("six seven", True)] * 9]
    with new_shards(tmp_path / "out") as folder:
        write_shards(folder, encode_pieces(stream, gpt2, jobs=1), gpt2.n_vocab, vocabulary_hash(gpt2))
    return tmp_path / "out" / "tokens-00001.safetensors"


def without_checksum(shard):
    """Make a shard one of those written before they had a checksum."""
    content = shard.read_bytes()
    header = json.loads(content[8:1024])
    del header["__metadata__"]["crc32"]
    shard.write_bytes(content[:8] + json.dumps(header).encode().ljust(1016) + content[1024:])


def test_any_flipped_bit_of_a_shard_is_noticed(shard, gpt2):
    content = shard.read_bytes()
    for at in [*range(1024, len(content)), content.index(b"trained"), content.index(b"U8")]:
        shard.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        with pytest.raises((CheckpointError, UsageError), match=r"tokens-00001\.safetensors"):
            open_documents([str(shard.parent)], gpt2)
    shard.write_bytes(content)
    assert len(open_documents([str(shard.parent)], gpt2)) == 10


def test_a_shard_without_a_checksum_is_read(shard, gpt2):
    without_checksum(shard)
    assert len(open_documents([str(shard.parent)], gpt2)) == 10


def test_an_id_outside_the_vocabulary_is_refused_in_a_shard_without_a_checksum(shard, gpt2):
    without_checksum(shard)
    content = bytearray(shard.read_bytes())
    content[1024 + 7] = 0xFF
    shard.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"00001\.safetensors has the token 65\d+, outside the vocabulary"):
        open_documents([str(shard.parent)], gpt2)


def test_a_shard_that_is_truncated_while_it_is_open_is_an_error(shard, gpt2):
    documents = open_documents([str(shard)], gpt2)
    os.truncate(shard, 0)
    for use in (lambda: documents.tokens.take(np.arange(3)), lambda: documents[0], lambda: documents.trained[:]):
        with pytest.raises(CheckpointError, match="was cut short while it was open"):
            use()
