"""The record of fetched files, and clearing of nothing else."""

from pathlib import Path

import pytest
from filelock import FileLock

import needs
from gpt2lab.data.fetched import RECORD, clear, kept, read_record, write_record
from gpt2lab.system.atomic import PARTIAL


def fetched(cache: Path, *names: str) -> Path:
    folder = cache / "address"
    with kept(folder, "memory://address"):
        write_record(folder, dict.fromkeys(names))
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("12")
    return folder


def test_clearing_removes_recorded_files_half_fetched_ones_and_locks(tmp_path):
    folder = fetched(tmp_path / "data", "a", "deep/b")
    (folder / f"c{PARTIAL}").write_text("123")
    removed = clear(tmp_path / "data")
    assert sorted((path.name, size) for path, size in removed if path.name != RECORD) == [
        ("a", 2), ("b", 2), (f"c{PARTIAL}", 3),
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_files_of_another_origin_stay(tmp_path):
    folder = fetched(tmp_path / "data", "a")
    (folder / "notes.txt").write_text("mine")
    (tmp_path / "data" / "novels").mkdir()
    (tmp_path / "data" / "novels" / "book.txt").write_text("mine")
    clear(tmp_path / "data")
    assert sorted(path.name for path in tmp_path.rglob("*.txt")) == ["book.txt", "notes.txt"]
    assert not (folder / "a").exists()


@needs.mark("POSIX")
def test_links_are_not_followed(tmp_path):
    elsewhere = fetched(tmp_path / "elsewhere", "a")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "address").symlink_to(elsewhere)
    assert clear(tmp_path / "data") == []
    assert (elsewhere / "a").exists()


@pytest.mark.parametrize("name", ["../../book", "/book"])
def test_a_record_cannot_name_files_outside_its_folder(tmp_path, name):
    (tmp_path / "book").write_text("mine")
    folder = fetched(tmp_path / "data", "a")
    write_record(folder, {"a": None, name.replace("/book", str(tmp_path / "book")) if name == "/book" else name: None})
    clear(tmp_path / "data")
    assert (tmp_path / "book").exists()


def test_what_another_process_is_fetching_stays(tmp_path):
    folder = fetched(tmp_path / "data", "a")
    with FileLock(tmp_path / "data" / "address.lock"):
        assert clear(tmp_path / "data") == []
    assert read_record(folder) == {"a": None}
