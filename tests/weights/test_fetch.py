import hashlib
import os
import socket

import pytest
from http_server import Server

from gpt2lab.errors import DownloadError
from gpt2lab.system.atomic import PARTIAL
from gpt2lab.weights import fetch as module
from gpt2lab.weights.fetch import fetch, fetch_beginning

CONTENT = os.urandom(300_000)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    running = Server()
    running.files["/f"] = CONTENT
    yield running
    running.close()


def ranges(server):
    return [wanted for _, _, wanted in server.requests]


def test_a_whole_file_comes_with_progress(server, tmp_path):
    seen = []
    fetch(f"{server.url}/f", tmp_path / "new" / "f", progress=lambda done, total: seen.append((done, total)))
    assert (tmp_path / "new" / "f").read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["f"]


def test_it_goes_on_from_a_partial_file(server, tmp_path):
    (tmp_path / f"f{PARTIAL}").write_bytes(CONTENT[:1000])
    fetch(f"{server.url}/f", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert ranges(server) == ["bytes=1000-"]


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.ranges = False
    (tmp_path / f"f{PARTIAL}").write_bytes(b"old" * 200_000)
    fetch(f"{server.url}/f", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_connections_that_break_are_taken_up_at_once(server, tmp_path):
    server.cut_after, server.cuts = 90_000, 3
    fetch(f"{server.url}/f", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=90000-", "bytes=180000-", "bytes=270000-"]


def test_a_body_that_always_ends_too_early_is_an_error_and_is_kept(server, tmp_path):
    server.cut_after, server.cuts, server.ranges = 1000, 99, False
    with pytest.raises(DownloadError, match=r"1,000 bytes are kept"):
        fetch(f"{server.url}/f", tmp_path / "f")
    assert (tmp_path / f"f{PARTIAL}").read_bytes() == CONTENT[:1000]
    assert not (tmp_path / "f").exists()


def test_a_partial_file_that_is_complete_needs_only_its_name(server, tmp_path):
    (tmp_path / f"f{PARTIAL}").write_bytes(CONTENT)
    fetch(f"{server.url}/f", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_partial_file_that_is_too_long_is_begun_again(server, tmp_path):
    (tmp_path / f"f{PARTIAL}").write_bytes(CONTENT + b"x")
    fetch(f"{server.url}/f", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_wrong_sha256_is_refused_and_removed(server, tmp_path):
    with pytest.raises(DownloadError, match="sha256"):
        fetch(f"{server.url}/f", tmp_path / "f", sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []
    fetch(f"{server.url}/f", tmp_path / "f", sha256=hashlib.sha256(CONTENT).hexdigest())


def test_404_with_an_xml_body_is_not_a_file(server, tmp_path):
    with pytest.raises(DownloadError, match="404"):
        fetch(f"{server.url}/none", tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/xml"])
def test_a_page_with_status_200_is_not_a_file(server, tmp_path, kind):
    server.types["/f"] = kind
    with pytest.raises(DownloadError, match="page"):
        fetch(f"{server.url}/f", tmp_path / "f")


@pytest.mark.parametrize("page", [b"\xef\xbb\xbf<?xml version='1.0'?><Error/>", b" \n<!DOCTYPE html><html>", b"<HTML>"])
def test_a_page_that_calls_itself_binary_is_not_a_file(server, tmp_path, page):
    server.files["/f"] = page
    with pytest.raises(DownloadError, match="page"):
        fetch(f"{server.url}/f", tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_offline_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/f"
    with pytest.raises(DownloadError, match=r"cannot reach .* is this machine online\?") as raised:
        fetch(url, tmp_path / "f")
    assert "\n" not in str(raised.value)


def test_an_unknown_host_is_one_line(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(DownloadError, match=r"name resolution.*online"):
        fetch("http://nowhere.example/f", tmp_path / "f")


def test_ctrl_c_keeps_what_has_come(server, tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(f"{server.url}/f", tmp_path / "f", progress=interrupt)
    assert (tmp_path / f"f{PARTIAL}").stat().st_size > 0
    fetch(f"{server.url}/f", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_full_disk_is_one_clear_error(server, tmp_path, monkeypatch):
    def full(file, chunk, partial):
        raise DownloadError(f"cannot write {partial}: No space left on device")

    monkeypatch.setattr(module, "_write", full)
    with pytest.raises(DownloadError, match="No space left"):
        fetch(f"{server.url}/f", tmp_path / "f")


def test_a_folder_that_cannot_be_made_is_one_clear_error(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="cannot write"):
        fetch(f"{server.url}/f", tmp_path / "file" / "f")


@pytest.mark.parametrize("cuts", [True, False])
def test_the_beginning_of_a_file_is_fetched_alone(server, cuts):
    server.ranges = cuts
    assert fetch_beginning(f"{server.url}/f", 1000) == CONTENT[:1000]
    assert ranges(server) == ["bytes=0-999"]


@pytest.mark.parametrize(("path", "says"), [("f", "fewer than 300,001"), ("missing", "404")])
def test_a_beginning_that_is_not_there_is_one_line(server, path, says):
    with pytest.raises(DownloadError, match=says):
        fetch_beginning(f"{server.url}/{path}", len(CONTENT) + 1)
