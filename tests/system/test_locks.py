"""Locks on folders: one holder at a time, also of a folder that does not exist yet."""

from __future__ import annotations

from pathlib import Path

import pytest

import needs
from gpt2lab.errors import UsageError
from gpt2lab.system.locks import Hold

pytestmark = needs.mark("POSIX")


def test_a_folder_is_created_and_locked(tmp_path: Path) -> None:
    with Hold() as one, Hold() as other:
        one.take(tmp_path / "a" / "b", create=True)
        with pytest.raises(UsageError, match="another process or run is writing into"):
            other.take(tmp_path / "a" / "b", create=True)


def test_a_created_folder_that_stays_empty_is_removed_with_its_parents(tmp_path: Path) -> None:
    with Hold() as hold:
        hold.take(tmp_path / "a" / "b", create=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_or_is_filled_stays(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with Hold() as hold:
        for name in ("old", "new"):
            hold.take(tmp_path / name, create=True)
        (tmp_path / "new" / "file").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]


def test_without_create_a_missing_folder_is_ignored(tmp_path: Path) -> None:
    with Hold() as hold:
        hold.take(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_on_a_folder_that_was_renamed_meanwhile_is_taken_again(tmp_path: Path, monkeypatch) -> None:
    """Between opening a folder and locking it, another process may move it away and create its own."""
    import fcntl

    flock, run, moved = fcntl.flock, tmp_path / "run", []

    def late(descriptor: int, operation: int) -> None:
        if not moved:
            moved.append(run.rename(tmp_path / "run-1"))
            run.mkdir()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with Hold() as one, Hold() as other:
        one.take(run, create=True)
        with pytest.raises(UsageError, match="another process"):
            other.take(run)
        other.take(tmp_path / "run-1")


def test_a_folder_may_be_taken_twice_by_the_same_holder(tmp_path: Path) -> None:
    with Hold() as hold:
        hold.take(tmp_path)
        hold.take(tmp_path)
