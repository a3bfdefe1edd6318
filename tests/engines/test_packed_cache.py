"""Cache entries: a read returns exactly a written entry or nothing, even if others write, die or clear meanwhile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import needs
from gpt2lab.engines import packed_cache, packed_entries
from gpt2lab.engines.packed_cache import Key, default_folder, has_entry, read_entry
from gpt2lab.engines.packed_entries import clear, entries, obstacle, write_entry
from gpt2lab.system.atomic import PARTIAL

KEY = Key("ab" * 32, "int8", 1, 1, {"n_vocab": 7, "n_ctx": 8, "n_embd": 4, "n_head": 2, "n_layer": 1})
SIZE = 8_400_953
MODEL = "/models/124M"


@pytest.fixture(scope="module")
def arena() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)


@pytest.fixture
def entry(tmp_path: Path, arena: np.ndarray) -> Path:
    write_entry(tmp_path, KEY, arena, MODEL)
    return tmp_path / KEY.name


def is_there(folder: Path, key: Key = KEY, size: int = SIZE) -> bool:
    return read_entry(folder, key, np.zeros(size, np.uint8))


def test_what_was_written_is_read(entry: Path, arena: np.ndarray) -> None:
    read = np.zeros_like(arena)
    assert read_entry(entry.parent, KEY, read)
    assert np.array_equal(read, arena)
    assert [path.name for path in entry.parent.iterdir()] == [KEY.name]


@pytest.mark.parametrize(
    "other",
    [
        KEY._replace(digest="cd" * 32),
        KEY._replace(precision="int4"),
        KEY._replace(layout=2),
        KEY._replace(readers=2),
        KEY._replace(shape={**KEY.shape, "n_head": 1}),
    ],
)
def test_an_entry_is_of_one_content_precision_layout_version_and_shape(entry: Path, other: Key) -> None:
    assert not is_there(entry.parent, other)
    entry.rename(entry.parent / other.name)
    assert not is_there(entry.parent, other)


@pytest.mark.parametrize("place", [0, 20, 60, packed_cache.HEADER, packed_cache.HEADER + SIZE // 2 + 1, -1])
def test_an_entry_with_one_wrong_byte_counts_as_absent(entry: Path, place: int) -> None:
    data = bytearray(entry.read_bytes())
    data[place] ^= 0x40
    entry.write_bytes(data)
    assert not is_there(entry.parent)


@pytest.mark.parametrize(
    "size", [0, 10, packed_cache.HEADER, packed_cache.HEADER + SIZE - 1, packed_cache.HEADER + SIZE + 1]
)
def test_an_entry_of_another_size_counts_as_absent(entry: Path, size: int) -> None:
    assert has_entry(entry.parent, KEY)
    assert [e.whole for e in entries(entry.parent)] == [True]
    os.truncate(entry, size)
    assert not is_there(entry.parent)
    assert not has_entry(entry.parent, KEY)
    assert [e.whole for e in entries(entry.parent)] == [False]


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"key": 5}', b'{"key": {"precision": 1}, "checksum": {}}', b"\0"]
)
def test_garbage_counts_as_absent_and_is_listed(entry: Path, text: bytes) -> None:
    entry.write_bytes((packed_cache.MAGIC + text).ljust(packed_cache.HEADER) + bytes(SIZE))
    assert not is_there(entry.parent)
    assert [(e.model, e.precision, e.whole) for e in entries(entry.parent)] == [("", "", False)]


def test_an_entry_for_an_arena_of_another_size_counts_as_absent(entry: Path) -> None:
    assert not is_there(entry.parent, size=SIZE - 1)


def test_a_folder_in_place_of_an_entry_counts_as_absent(tmp_path: Path) -> None:
    (tmp_path / KEY.name).mkdir()
    assert not is_there(tmp_path)


def test_an_error_while_writing_leaves_nothing(tmp_path: Path, arena: np.ndarray, monkeypatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_entry(tmp_path, KEY, arena, MODEL)
    assert list(tmp_path.iterdir()) == []


WRITER = """
import os, sys, time
from pathlib import Path
import numpy as np
from gpt2lab.engines.packed_cache import Key
from gpt2lab.engines.packed_entries import write_entry
def stop(_):
    print("written", flush=True)
    time.sleep(60)
if sys.argv[2] == "stop":
    os.fsync = stop
shape = {"n_vocab": 7, "n_ctx": 8, "n_embd": 4, "n_head": 2, "n_layer": 1}
arena = np.random.default_rng(0).integers(0, 256, int(sys.argv[3]), np.uint8)
for _ in range(5):
    write_entry(Path(sys.argv[1]), Key("ab" * 32, "int8", 1, 1, shape), arena, "/models/124M")
"""


def writer(folder: Path, how: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), how, str(SIZE)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@needs.mark("POSIX")
def test_a_killed_writer_leaves_no_entry_and_is_swept_up_after(tmp_path: Path, arena, monkeypatch) -> None:
    with writer(tmp_path, "stop") as process:
        assert process.stdout.readline() == "written\n"
        process.kill()
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(PARTIAL)
    assert not is_there(tmp_path)
    write_entry(tmp_path, KEY, arena, MODEL)
    assert left.exists()  # its writer might still be running
    monkeypatch.setattr(packed_entries, "ABANDONED", 0.0)
    write_entry(tmp_path, KEY, arena, MODEL)
    assert [path.name for path in tmp_path.iterdir()] == [KEY.name]


def test_processes_that_write_the_same_entry_at_once_do_not_disturb_each_other(tmp_path: Path, arena) -> None:
    write_entry(tmp_path, KEY, arena, MODEL)
    processes = [writer(tmp_path, "go on") for _ in range(3)]
    while any(process.poll() is None for process in processes):
        assert is_there(tmp_path)
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == [KEY.name]


def test_the_longest_unused_entries_make_room(tmp_path: Path, arena: np.ndarray, monkeypatch) -> None:
    keys = [KEY._replace(digest=str(n) * 64) for n in range(4)]
    for n, key in enumerate(keys[:3]):
        write_entry(tmp_path, key, arena, f"/models/{n}")
        os.utime(tmp_path / key.name, (n + 1, n + 1))
    assert is_there(tmp_path, keys[0])  # from here on, it is the last used
    monkeypatch.setattr(packed_entries, "SIZE_LIMIT", 2 * (SIZE + packed_cache.HEADER))
    write_entry(tmp_path, keys[3], arena, "/models/3")
    assert [entry.model for entry in entries(tmp_path)] == ["/models/3", "/models/0"]


def test_an_entry_larger_than_the_limit_is_still_kept(tmp_path: Path, arena: np.ndarray, monkeypatch) -> None:
    monkeypatch.setattr(packed_entries, "SIZE_LIMIT", 1)
    write_entry(tmp_path, KEY, arena, MODEL)
    assert is_there(tmp_path)


def test_a_model_that_changed_supersedes_what_it_was(entry: Path, arena: np.ndarray) -> None:
    changed = KEY._replace(digest="cd" * 32)
    write_entry(entry.parent, changed._replace(precision="int4"), arena, MODEL)
    write_entry(entry.parent, changed, arena, "/models/other")
    assert entry.exists()
    write_entry(entry.parent, changed, arena, MODEL)
    assert not entry.exists()
    assert {(e.model, e.precision) for e in entries(entry.parent)} == {(MODEL, "int4"), (MODEL, "int8")}


def test_clearing_removes_everything_and_tells_how_much(entry: Path) -> None:
    (entry.parent / f".half{PARTIAL}").write_bytes(b"123")
    size = entry.stat().st_size
    assert sum(deleted.size for deleted in clear(entry.parent)) == size + 3
    assert list(entry.parent.iterdir()) == []
    assert clear(entry.parent) == clear(entry.parent / "nowhere") == []


def test_clearing_keeps_files_of_another_origin_and_links(entry: Path, tmp_path: Path) -> None:
    others = {tmp_path / name for name in ("notes.txt", "notes.json", "mine.packed", ".notes.partial")}
    for other in others:
        other.write_text("mine")
    link = entry.with_name(entry.name.replace("int8", "int4"))
    link.symlink_to("notes.txt")
    assert [deleted.path for deleted in clear(tmp_path)] == [entry]
    assert set(tmp_path.iterdir()) == {*others, link}


def test_making_room_keeps_files_of_another_origin(entry: Path, arena: np.ndarray) -> None:
    other = entry.with_name("copy-of-" + entry.name)
    shutil.copy(entry, other)
    abandoned = entry.with_name(".notes.partial")
    abandoned.write_text("mine")
    os.utime(abandoned, (0, 0))
    write_entry(entry.parent, KEY._replace(digest="cd" * 32), arena, MODEL)
    assert other.exists() and abandoned.exists() and not entry.exists()


def test_an_entry_tells_the_end_of_a_path_of_any_length(tmp_path: Path, arena: np.ndarray) -> None:
    write_entry(tmp_path, KEY, arena, "/😀" * 2000)
    assert is_there(tmp_path)
    assert entries(tmp_path)[0].model == ("/😀" * 2000)[-250:]


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"GPT2LAB_CACHE": "/else", "XDG_CACHE_HOME": "/xdg"}, "/else/packed"),
        ({"GPT2LAB_CACHE": "off"}, None),
        ({"GPT2LAB_CACHE": "OFF"}, None),
        ({"GPT2LAB_CACHE": " None "}, None),
        ({"GPT2LAB_CACHE": "0"}, None),
        ({"GPT2LAB_CACHE": "", "XDG_CACHE_HOME": "/xdg"}, "/xdg/gpt2lab/packed"),
        ({"GPT2LAB_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/home/me"}, "/home/me/.cache/gpt2lab/packed"),
    ],
)
@needs.mark("Linux")
def test_the_folder_is_the_users_or_the_platforms(variables: dict, folder: str | None, monkeypatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert default_folder() == (folder and Path(folder))


def test_what_stands_in_the_caches_way_is_told(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    for chosen, reason in (
        (tmp_path, None),
        (tmp_path / "nowhere" / "yet", None),
        (tmp_path / "file", f"{tmp_path / 'file'} is not a folder"),
        (tmp_path / "file" / "below", f"{tmp_path / 'file'} is not a folder"),
        ("Off", "GPT2LAB_CACHE is Off"),
    ):
        monkeypatch.setenv("GPT2LAB_CACHE", str(chosen))
        assert obstacle() == reason
