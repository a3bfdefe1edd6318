"""Data by address: fsspec's memory:// stands for an object store, a server on the loopback interface for the web."""

from __future__ import annotations

import http.server
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest

from gpt2lab.data.remote import fetch, is_remote
from gpt2lab.errors import DownloadError, UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPT2LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def store() -> Iterator[Any]:
    """Empty the object store ``memory://bucket/`` before and after a test."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    yield memory
    memory.store.clear()


@pytest.fixture
def shards(store: Any) -> str:
    for name, data in {"a.safetensors": b"12345", "deep/b.safetensors": b"678"}.items():
        store.pipe_file(f"/bucket/shards/{name}", data)
    return "memory://bucket/shards/"


@pytest.mark.parametrize("path", ["s3://bucket/x", "gs://b", "https://host/a.txt", "memory://x", "file:///x", "hf://d"])
def test_addresses_are_remote(path):
    assert is_remote(path)


@pytest.mark.parametrize("path", ["stories", "./a:b", "/abs/path", r"C:\text", "C:/text", "*.txt", "://x"])
def test_names_of_files_are_not(path):
    assert not is_remote(path)


def test_a_folder_comes_with_everything_below_it(shards, cache):
    folder = fetch(shards)
    assert (folder / "a.safetensors").read_bytes() == b"12345"
    assert (folder / "deep" / "b.safetensors").read_bytes() == b"678"
    assert cache in folder.parents


def test_one_file_comes_as_a_file(store):
    store.pipe_file("/bucket/story.txt", b"Once")
    assert fetch("memory://bucket/story.txt").read_bytes() == b"Once"


def test_what_is_here_is_not_fetched_again(shards, store, monkeypatch):
    fetch(shards)
    monkeypatch.setattr(type(store), "get_file", lambda *_: pytest.fail("fetched again"))
    lines: list[str] = []
    fetch(shards, lines.append)
    assert lines == []


def test_it_says_what_it_fetches(shards):
    lines: list[str] = []
    fetch(shards, lines.append)
    assert len(lines) == 1
    assert "2 files" in lines[0]


def test_an_object_that_changed_is_fetched_again_even_if_its_size_did_not(shards, store):
    fetch(shards)
    store.pipe_file("/bucket/shards/a.safetensors", b"54321")
    assert (fetch(shards) / "a.safetensors").read_bytes() == b"54321"


def test_a_shard_that_was_removed_there_is_removed_here(shards, store):
    folder = fetch(shards)
    store.rm_file("/bucket/shards/a.safetensors")
    fetch(shards)
    assert not (folder / "a.safetensors").exists()


def test_a_file_that_was_cut_here_is_fetched_again(shards):
    folder = fetch(shards)
    (folder / "a.safetensors").write_bytes(b"12")
    assert (fetch(shards) / "a.safetensors").read_bytes() == b"12345"


def test_a_transfer_that_breaks_leaves_no_file_and_the_next_one_completes_it(shards, store, monkeypatch):
    def break_off(self: Any, remote: str, local: str) -> None:
        Path(local).write_bytes(b"1")
        raise OSError("connection reset")

    with monkeypatch.context() as broken:
        broken.setattr(type(store), "get_file", break_off)
        with pytest.raises(DownloadError, match="connection reset"):
            fetch(shards)
    folder = fetch(shards)
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
        ".fetched.json",
        "a.safetensors",
        "b.safetensors",
    ]


def test_what_came_before_a_transfer_broke_is_kept(shards, store, monkeypatch):
    get_file, fetched = type(store).get_file, []

    def break_at_second(self: Any, remote: str, local: str) -> None:
        fetched.append(remote)
        if len(fetched) == 2:
            raise OSError("connection reset")
        get_file(self, remote, local)

    monkeypatch.setattr(type(store), "get_file", break_at_second)
    with pytest.raises(DownloadError):
        fetch(shards)
    fetch(shards)
    assert len(fetched) == 3


def test_a_transfer_that_comes_short_is_refused(shards, store, monkeypatch):
    monkeypatch.setattr(type(store), "get_file", lambda self, remote, local: Path(local).write_bytes(b"1"))
    with pytest.raises(DownloadError, match="received 1 of 5 bytes"):
        fetch(shards)


def test_several_at_once_fetch_once(shards, store, monkeypatch):
    fetched: list[str] = []
    get_file = type(store).get_file

    def count(self: Any, remote: str, local: str) -> None:
        fetched.append(remote)
        get_file(self, remote, local)

    monkeypatch.setattr(type(store), "get_file", count)
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(fetch, [shards] * 4))
    assert len(folders) == 1
    assert len(fetched) == 2


def test_more_than_the_disk_holds_is_refused_before_it_is_fetched(shards, monkeypatch):
    class Full:
        free = 3

    monkeypatch.setattr("gpt2lab.data.remote.shutil.disk_usage", lambda _: Full)
    with pytest.raises(DownloadError, match=r"needs 8 bytes, but .* has 3 free"):
        fetch(shards)


def test_nothing_at_an_address_is_said(store):
    with pytest.raises(UsageError, match="no files at memory://bucket/nothing/"):
        fetch("memory://bucket/nothing/")


def test_an_unknown_protocol_is_said():
    with pytest.raises(UsageError, match=r"^nonsense://x: .*[Pp]rotocol"):
        fetch("nonsense://x")


@pytest.mark.parametrize(
    ("url", "module", "package"),
    [("s3://bucket/shards/", "s3fs", "s3fs"), ("https://host/folder/", "aiohttp", r"'fsspec\[http\]'")],
)
def test_a_protocol_whose_package_is_absent_names_it(url, module, package, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)  # so that it is imported again
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, url.partition(":")[0], raising=False)
    with pytest.raises(UsageError, match=f"needs {package}: pip install {package}$"):
        fetch(url)


def test_a_local_address_is_read_where_it_is(tmp_path):
    (tmp_path / "story.txt").write_text("Once")
    assert fetch(f"file://{tmp_path}") == tmp_path


@pytest.fixture
def web() -> Iterator[tuple[str, list[str]]]:
    """Start a web server with one text; yield its address and the paths that are requested."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if self.path == "/a%20story.txt" else 404)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"Once")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_of_the_web_is_fetched_once(web):
    address, asked = web
    for _ in range(2):
        path = fetch(f"{address}/a%20story.txt")
    assert (path.name, path.read_text(), len(asked)) == ("a story.txt", "Once", 1)


def test_a_file_that_the_web_does_not_have_is_said(web):
    with pytest.raises(DownloadError, match="404"):
        fetch(f"{web[0]}/nothing.txt")
