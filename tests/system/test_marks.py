"""The mark of gpt2lab's own files, and deletion that touches no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt2lab.system.marks import MARK, delete, is_plain, own_patterns, write_mark


def test_a_mark_names_the_patterns_of_its_folder(tmp_path: Path) -> None:
    write_mark(tmp_path, ["a-*", "b.json"])
    assert own_patterns(tmp_path) == ("a-*", "b.json")


@pytest.mark.parametrize("content", ["", "[]", '{"files": ["*"]}', '{"made by": "gpt2lab", "files": 1}', "[" * 100_000])
def test_a_file_of_that_name_from_elsewhere_is_no_mark(tmp_path: Path, content: str) -> None:
    (tmp_path / MARK).write_text(content)
    assert own_patterns(tmp_path) == ()


def test_only_named_files_are_deleted_and_then_the_folders_below_that_they_leave_empty(tmp_path: Path) -> None:
    for name in ("out/deep/a", "out/deep/b", "out/other/c", "out/mine"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("12")
    deleted = delete(tmp_path / "out", ["deep/a", "deep/b", "other/c", "absent"])
    assert [(path.name, size) for path, size in deleted] == [("a", 2), ("b", 2), ("c", 2)]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["link", "linked/book", "../book", "folder"])
def test_links_and_places_outside_are_left_alone(tmp_path: Path, name: str) -> None:
    book = tmp_path / "book"
    book.write_text("kept")
    out = tmp_path / "out"
    (out / "folder").mkdir(parents=True)
    (out / "link").symlink_to(book)
    (out / "linked").symlink_to(tmp_path)
    assert delete(out, [name, str(book)]) == []
    assert book.read_text() == "kept" and (out / "link").is_symlink() and (out / "folder").is_dir()


def test_a_link_is_no_plain_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    assert is_plain(tmp_path / "file") and not is_plain(tmp_path / "link") and not is_plain(tmp_path / "absent")
