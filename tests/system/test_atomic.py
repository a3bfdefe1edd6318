"""Files and folders are complete or absent, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

import needs
from gpt2lab.system.atomic import PARTIAL, new_file, new_files, new_folder, write_file

POSIX = needs.mark("POSIX")


def full(*_: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


FAILURES = pytest.mark.parametrize(("fail", "error"), [(full, OSError), (interrupt, KeyboardInterrupt)])


def tree(folder: Path) -> dict[str, str]:
    """Return the contents of all files below ``folder``, by path."""
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def failing_at(number: int, fail: Callable[..., NoReturn], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only the rename with this number, counted from 0, fail."""
    replace, calls = Path.replace, iter(range(1000))

    def replaced(path: Path, target: Path) -> Path:
        return fail() if next(calls) == number else replace(path, target)

    monkeypatch.setattr(Path, "replace", replaced)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the names of the files and folders that are flushed to disk."""
    names: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        names.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    return names


# ---- a file ---------------------------------------------------------------------------------------------------------


def test_a_file_is_there_when_the_block_ends_and_not_before(tmp_path: Path) -> None:
    with new_file(tmp_path / "deep" / "a", sync=False) as file:
        file.write(b"new")
        assert not (tmp_path / "deep" / "a").exists()
    assert tree(tmp_path) == {"deep/a": "new"}


def test_what_is_begun_is_known_by_its_name(tmp_path: Path) -> None:
    with new_file(tmp_path / "a", sync=False):
        (begun,) = tmp_path.iterdir()
        assert begun.name.endswith(PARTIAL)


def test_a_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    write_file(tmp_path / "a", b"new", sync=True)
    assert tree(tmp_path) == {"a": "new"}


@FAILURES
def test_what_goes_wrong_in_the_block_leaves_the_old_file_and_nothing_else(tmp_path: Path, fail, error) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(error), new_file(tmp_path / "a", sync=True) as file:
        file.write(b"half")
        fail()
    assert tree(tmp_path) == {"a": "old"}


@FAILURES
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_what_goes_wrong_behind_the_block_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where, fail, error
) -> None:
    (tmp_path / "a").write_text("old")
    monkeypatch.setattr(*((os, "fsync", fail) if where == "fsync" else (Path, "replace", fail)))
    with pytest.raises(error):
        write_file(tmp_path / "a", b"new", sync=True)
    assert tree(tmp_path) == {"a": "old"}


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    with new_file(tmp_path / "a", sync=False) as first:
        first.write(b"first")
        with new_file(tmp_path / "a", sync=False) as second:
            second.write(b"second")
        assert tree(tmp_path)["a"] == "second"
    assert tree(tmp_path) == {"a": "first"}


@POSIX
def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_file(tmp_path / "link", b"new", sync=False)
    assert not (tmp_path / "link").is_symlink()
    assert tree(tmp_path) == {"link": "new", "target": "old"}


@POSIX
def test_new_files_and_folders_have_the_permissions_of_any_other(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_file(tmp_path / "a", b"", sync=False)
        with new_folder(tmp_path / "b", sync=False) as folder:
            (folder / "c").touch()
    finally:
        os.umask(mask)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "b", "b/c")]
    assert modes == [0o640, 0o750, 0o640]


@needs.mark("Linux")
def test_only_what_is_to_be_on_the_disk_is_waited_for(tmp_path: Path, synced: list[str]) -> None:
    write_file(tmp_path / "a", b"x", sync=False)
    assert synced == []
    write_file(tmp_path / "a", b"x", sync=True)
    file, folder = synced
    assert file.endswith(PARTIAL) and folder == tmp_path.name


# ---- a folder -------------------------------------------------------------------------------------------------------


def test_a_folder_is_there_when_the_block_ends_and_not_before(tmp_path: Path) -> None:
    with new_folder(tmp_path / "deep" / "out", sync=True) as folder:
        (folder / "a").write_text("new")
        assert not (tmp_path / "deep" / "out").exists()
    assert tree(tmp_path / "deep") == {"out/a": "new"}


def test_an_empty_folder_is_replaced_and_a_full_one_is_not(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with new_folder(out, sync=False) as folder:
        (folder / "a").write_text("first")
    with pytest.raises(OSError, match="out"), new_folder(out, sync=False) as folder:
        (folder / "b").write_text("second")
    assert tree(tmp_path) == {"out/a": "first"}


def test_what_is_in_the_place_goes_aside(tmp_path: Path) -> None:
    out, aside = tmp_path / "out", tmp_path / "aside"
    out.mkdir()
    (out / "a").write_text("old")
    with new_folder(out, sync=True, aside=aside) as folder:
        (folder / "b").write_text("new")
    assert (tree(out), tree(aside)) == ({"b": "new"}, {"a": "old"})


@FAILURES
@pytest.mark.parametrize("renaming", [0, 1])
def test_what_went_aside_comes_back_if_the_new_folder_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renaming, fail, error
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").write_text("old")
    failing_at(renaming, fail, monkeypatch)
    with pytest.raises(error), new_folder(out, sync=False, aside=tmp_path / "aside") as folder:
        (folder / "b").write_text("new")
    assert tree(tmp_path) == {"out/a": "old"}


def test_a_folder_that_another_process_has_begun_stays(tmp_path: Path) -> None:
    begun = tmp_path / "out.partial"
    begun.mkdir()
    (begun / "a").write_text("theirs")
    with pytest.raises(FileExistsError), new_folder(tmp_path / "out", sync=False, partial=begun):
        pass
    assert tree(begun) == {"a": "theirs"}


@needs.mark("Linux")
def test_all_files_of_a_folder_are_on_the_disk_before_it_has_its_name(tmp_path: Path, synced: list[str]) -> None:
    with new_folder(tmp_path / "out", sync=True) as folder:
        for name in ("a", "b"):
            (folder / name).write_text(name)
    assert sorted(synced[:2]) == ["a", "b"]
    assert synced[2:] == [folder.name, tmp_path.name]


# ---- several files --------------------------------------------------------------------------------------------------


def test_files_of_the_same_name_are_replaced_and_others_stay(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("old")
    with new_files(tmp_path, sync=True) as folder:
        for name in ("b", "c"):
            (folder / name).write_text("new")
        assert (tmp_path / "b").read_text() == "old"
    assert tree(tmp_path) == {"a": "old", "b": "new", "c": "new"}


@FAILURES
def test_files_of_a_block_that_fails_do_not_appear(tmp_path: Path, fail, error) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(error), new_files(tmp_path, sync=False) as folder:
        (folder / "a").write_text("new")
        fail()
    assert tree(tmp_path) == {"a": "old"}


@FAILURES
def test_each_file_is_the_old_or_the_new_one_if_moving_them_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail, error
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("old")
    failing_at(1, fail, monkeypatch)
    with pytest.raises(error), new_files(tmp_path, sync=False) as folder:
        for name in ("a", "b"):
            (folder / name).write_text("new")
    assert tree(tmp_path) == {"a": "new", "b": "old"}


def test_a_name_of_the_greatest_length_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 255)
    write_file(path, b"new", sync=False)
    assert path.read_bytes() == b"new"


def test_a_folder_that_is_synced_may_have_folders_in_it(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out", sync=True) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("new")
    assert (tmp_path / "out" / "sub" / "a").read_text() == "new"
