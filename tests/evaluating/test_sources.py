"""Data sets as they lie on disk: archives, folders, and faulty ones."""

from __future__ import annotations

import gzip
import importlib
import io
import tarfile
import zipfile

import pytest

import needs
from gpt2lab.errors import UsageError
from gpt2lab.evaluating import sources
from gpt2lab.evaluating.sources import Source, find_sources, records

PATTERNS = ("wiki.test.raw", "*test*.txt")
CONTENT = b"one\ntwo\n"


def made_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("set/wiki.train.raw", b"no")
        archive.writestr("set/wiki.test.raw", CONTENT)
    return path


def made_tar(path):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (("set/wiki.train.raw", b"no"), ("set/wiki.test.raw", CONTENT)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def made_folder(path):
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "wiki.test.raw").write_bytes(CONTENT)
    (path / "my_test.txt").write_bytes(b"no")
    return path


def made_gz(path):
    path.write_bytes(gzip.compress(CONTENT))
    return path


MAKERS = {
    "a.zip": made_zip,
    "a.tgz": made_tar,
    "A.TAR.GZ": made_tar,
    "folder": made_folder,
    "wiki.test.raw.gz": made_gz,
}


@pytest.mark.parametrize("name", MAKERS)
def test_the_wanted_file_is_found_and_read(tmp_path, name):
    (source,) = find_sources(MAKERS[name](tmp_path / name), PATTERNS)
    assert list(source.lines()) == [b"one\n", b"two\n"]
    assert list(source.lines(2)) == [b"on", b"e\n", b"tw", b"o\n"]
    assert source.kind == ".raw"


def test_an_archive_without_it_says_what_was_looked_for(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", b"")
    with pytest.raises(UsageError, match=r"a\.zip has no file named like wiki\.test\.raw or \*test\*\.txt"):
        find_sources(path, PATTERNS)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"there is no file .*absent\.txt"):
        find_sources(tmp_path / "absent.txt", PATTERNS)


@pytest.mark.parametrize("name", ["a.zip", "a.tgz"])
def test_what_is_no_archive_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"<html>not found</html>")
    with pytest.raises(UsageError, match=f"{name} is damaged or not an archive"):
        find_sources(tmp_path / name, PATTERNS)


@pytest.mark.parametrize("name", ["a.zip", "a.tgz", "wiki.test.raw.gz"])
def test_a_damaged_archive_is_refused(tmp_path, name):
    path = MAKERS[name](tmp_path / name)
    content = bytearray(path.read_bytes())
    at = content.index(b"one") if name == "a.zip" else len(content) // 2
    content[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=f"{name}.*damaged"):
        for source in find_sources(path, PATTERNS):
            list(source.lines())


def test_json_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}')
    assert [record for _, record in records(Source(tmp_path / "x.jsonl"))] == [{"a": 1}, {"a": 2}]


def test_json_too_deep_to_be_read_names_the_line(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": ' + "[" * 200_000)
    with pytest.raises(UsageError, match=r"line 1 of .* is (nested too deeply|not JSON)"):
        list(records(Source(tmp_path / "x.jsonl")))


def test_parquet_asks_for_pyarrow_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"needs pyarrow \(pip install pyarrow\)"):
        list(records(Source(tmp_path / "x.parquet")))


def test_parquet_is_read_where_pyarrow_is(tmp_path):
    pyarrow = needs.package("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    rows = [{"text": "one two", "options": ["a", "b"]}, {"text": "three four", "options": []}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    found = list(records(Source(tmp_path / "x.parquet")))
    assert [record for _, record in found] == rows
    assert found[1][0].startswith("row 2 of ")
    (tmp_path / "y.parquet").write_bytes(b"PAR1 nonsense PAR1")
    with pytest.raises(UsageError, match="not a usable Parquet file"):
        list(records(Source(tmp_path / "y.parquet")))
