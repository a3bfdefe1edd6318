"""Digests detect whether files have changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpt2lab.engines import digests
from gpt2lab.engines.digests import content_digest, record_digest, recorded_digest, settled, stamp


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a", tmp_path / "b"]
    paths[0].write_bytes(b"some content")
    paths[1].write_bytes(b"more")
    return paths


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def test_a_digest_is_found_by_the_stamp(files: list[Path], folder: Path) -> None:
    assert recorded_digest(folder, stamp(files)) is None
    record_digest(folder, stamp(files), "abc")
    assert recorded_digest(folder, stamp(files)) == "abc"
    assert recorded_digest(folder, stamp(files[:1])) is None


def test_a_file_that_was_written_has_another_stamp_though_size_and_mtime_are_the_same(files, folder) -> None:
    before = stamp(files)
    times = files[0].stat()
    record_digest(folder, before, "abc")
    files[0].write_bytes(b"SOME CONTENT")
    os.utime(files[0], ns=(times.st_atime_ns, times.st_mtime_ns))
    assert before[0][:3] == stamp(files)[0][:3]
    assert recorded_digest(folder, stamp(files)) is None


def test_a_file_that_was_replaced_has_another_stamp(files: list[Path], folder: Path) -> None:
    record_digest(folder, stamp(files), "abc")
    copy = files[0].with_name("copy")
    copy.write_bytes(files[0].read_bytes())
    copy.replace(files[0])
    assert recorded_digest(folder, stamp(files)) is None


def test_a_file_that_has_just_changed_is_not_settled(files: list[Path], monkeypatch) -> None:
    assert not settled(stamp(files))
    monkeypatch.setattr(digests, "SETTLED", -1.0)
    assert settled(stamp(files))


@pytest.mark.parametrize("text", [b"", b"\xff", b"[]", b"{}", b'{"digest": "abc", "stamp": 5}', b'{"stamp": [[]]}'])
def test_a_damaged_record_is_no_record(files: list[Path], folder: Path, text: bytes) -> None:
    record_digest(folder, stamp(files), "abc")
    (record,) = folder.iterdir()
    record.write_bytes(text)
    assert recorded_digest(folder, stamp(files)) is None


def test_records_of_files_that_are_gone_are_forgotten(files: list[Path], folder: Path) -> None:
    record_digest(folder, stamp(files), "abc")
    gone = stamp(files)
    files[1].unlink()
    record_digest(folder, stamp(files[:1]), "def")
    assert recorded_digest(folder, gone) is None
    assert recorded_digest(folder, stamp(files[:1])) == "def"


def test_the_digest_is_of_the_contents_alone(files: list[Path], tmp_path: Path, monkeypatch) -> None:
    digest = content_digest(files)
    copies = [tmp_path / "c", tmp_path / "d"]
    for file, copy in zip(files, copies, strict=True):
        copy.write_bytes(file.read_bytes())
    assert content_digest(copies) == digest
    copies[0].write_bytes(b"some content.")
    assert content_digest(copies) != digest


def test_what_moves_from_one_file_to_the_next_is_another_content(tmp_path: Path) -> None:
    found = set()
    for first, second in ((b"ab", b"c"), (b"a", b"bc"), (b"abc", b"")):
        (tmp_path / "a").write_bytes(first)
        (tmp_path / "b").write_bytes(second)
        found.add(content_digest([tmp_path / "a", tmp_path / "b"]))
    assert len(found) == 3


def test_every_byte_of_a_file_of_several_pieces_counts(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(digests, "_PIECE", 32)
    monkeypatch.setattr(digests, "_CHUNK", 16)
    data, found = bytearray(range(100)), set()
    for place in (0, 15, 16, 31, 32, 63, 64, 99):
        changed = data.copy()
        changed[place] ^= 1
        (tmp_path / "a").write_bytes(changed)
        found.add(content_digest([tmp_path / "a"]))
    assert len(found) == 8
