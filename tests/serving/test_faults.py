"""Clients that leave or do not read, a model that fails, a server that is stopped."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace

import httpx
import pytest

import needs
from gpt2lab.cli.main import main
from gpt2lab.errors import UsageError
from gpt2lab.serving.hosts import is_loopback
from gpt2lab.serving.server import listen_on, most_connections
from gpt2lab.serving.settings import Settings

from .conftest import PROMPT, eventually

LONG = {"prompt": PROMPT, "max_tokens": 500, "ignore_eos": True}


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_what_it_held(api, stream):
    before = api.metric("gpt2lab_disconnects_total")
    with api.raw({**LONG, "n": 8, "stream": stream}) as connection:
        if stream:
            assert b" 200 " in connection.recv(1000)
        assert eventually(lambda: api.worker.outstanding == 8)
    assert api.idle(2), "samples ran on"
    drawn = api.metric("gpt2lab_drawn_tokens_total")
    time.sleep(0.05)
    assert api.metric("gpt2lab_drawn_tokens_total") == drawn
    assert eventually(lambda: api.metric("gpt2lab_disconnects_total") == before + 1)


def test_a_client_that_leaves_while_its_prompt_is_scored_frees_it(api):
    with api.raw({"prompt": [[262] * 500] * 8, "max_tokens": 1, "echo": True, "logprobs": 5}):
        assert eventually(lambda: api.worker.outstanding == 8)
    assert api.idle(3)
    assert eventually(lambda: not api.worker._readings)


def test_a_client_that_leaves_while_sending_is_no_error(api):
    connection = api.raw()
    connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
    connection.sendall(b"Content-Length: 100\r\n\r\n{")
    connection.close()
    assert api.complete(prompt=PROMPT, max_tokens=1).status_code == 200


def test_a_slow_reader_stalls_nobody_and_is_cut_off(start):
    api = start(Settings(stall_seconds=0.4), send_buffer=4096)
    # Log-probabilities make its stream much longer than the buffers of sockets and uvicorn.
    with api.raw({**LONG, "max_tokens": 150, "stream": True, "logprobs": 20}, buffer=4096) as slow:
        assert b" 200 " in slow.recv(100)
        began = time.monotonic()
        assert api.complete(prompt=PROMPT, max_tokens=5).status_code == 200
        assert time.monotonic() - began < 15
        assert eventually(lambda: not api.server.server_state.tasks, 30), "it is still waited for"
        received = [b""]
        with suppress(ConnectionResetError):
            while part := slow.recv(1 << 16):
                received.append(part)
        assert b"[DONE]" not in received[-1]
    assert api.idle(20)


def test_a_small_request_ends_while_a_large_one_fills_every_place(start):
    api = start(Settings(max_batch=4))
    with api.raw({**LONG, "n": 128, "stream": True}) as large:
        assert b" 200 " in large.recv(100)
        for _ in range(3):
            assert api.complete(prompt=PROMPT, max_tokens=5, seed=1).json()["usage"]["completion_tokens"] == 5
        assert api.worker.outstanding == 128
    assert api.idle()


def test_a_step_that_fails_ends_its_requests_and_not_the_server(start, tales, monkeypatch):
    api = start()
    scheduler = eventually(lambda: hasattr(api.worker, "_scheduler")) and api.worker._scheduler
    monkeypatch.setattr(scheduler, "step", lambda: 1 / 0)
    answer = api.complete(prompt=PROMPT)
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "model_failed"
    assert api.complete(prompt=PROMPT, max_tokens=2).status_code == 200  # with a new scheduler
    assert api.metric("gpt2lab_failures_total") == 1


def test_an_address_that_is_taken_is_a_plain_error():
    with listen_on("127.0.0.1", 0) as bound:
        bound.listen()
        with pytest.raises(UsageError, match="another --port"):
            listen_on("127.0.0.1", bound.getsockname()[1])
    with pytest.raises(UsageError, match="port must be"):
        listen_on("127.0.0.1", 70000)


@pytest.mark.parametrize("host", ["a" * 70, "a..example"])
def test_a_host_that_is_no_name_is_a_plain_error(host, capsys, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: host.encode("idna"))  # as Python's does first
    assert not is_loopback(host)
    with pytest.raises(SystemExit, match="2"):
        main(["serve", "--host", host])
    assert capsys.readouterr().err == f"gpt2lab: error: cannot listen on {host}: this is not a host name\n"


@needs.mark("POSIX")
@pytest.mark.parametrize(("may_open", "connections"), [(10_240, 10_176), (300, 192)])
def test_a_limit_of_open_files_that_cannot_be_raised_lowers_the_number_of_connections(
    monkeypatch, may_open, connections
):
    import resource

    def set_limit(_: int, limits: tuple[int, int]) -> None:
        if limits[0] > may_open:
            raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))  # as on macOS
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    assert most_connections(50_000) == connections


def test_the_server_runs_on_asyncio_even_if_uvloop_is_installed(start, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", SimpleNamespace())
    assert start().server.config.loop == "asyncio"


def begin(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """Provide ``gpt2lab serve`` in a separate process, and its address."""
    command = [sys.executable, "-m", "gpt2lab", "serve", "--port", "0", "--threads", "1", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    for line in process.stderr:
        if found := re.search(r"serving .* on (http://\S+)", line):
            return process, found[1]
    pytest.fail("it did not start")


@needs.mark("POSIX")
def test_sigterm_lets_what_runs_finish_refuses_more_and_exits_with_0():
    process, url = begin()
    try:
        with httpx.stream("POST", f"{url}/v1/completions", json={**LONG, "stream": True}, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            assert eventually(lambda: httpx.get(f"{url}/health").status_code == 503)
            assert httpx.post(f"{url}/v1/completions", json=LONG).status_code == 503
            received = [line for line in lines if line]
        assert received[-1] == "data: [DONE]" and '"finish_reason": "length"' in received[-2]
        assert process.wait(20) == 0
        assert process.stderr
        log = process.stderr.read()
        assert "/v1/completions 200" in log and PROMPT not in log and "Traceback" not in log
    finally:
        process.kill()
        process.wait()


def ends_a_stream_by_draining(process: subprocess.Popen[str], url: str) -> None:
    """Check that SIGTERM ends a long stream with ``draining``, and the server with 0."""
    with httpx.stream("POST", f"{url}/v1/completions", json={**LONG, "stream": True, "n": 64}, timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        process.send_signal(signal.SIGTERM)
        assert "draining" in [line for line in lines if line][-1]
    assert process.wait(20) == 0


@needs.mark("POSIX")
def test_a_drain_has_an_end_and_a_second_signal_ends_it_at_once():
    process, url = begin("--drain_seconds", "0.3", "--quiet")
    try:
        ends_a_stream_by_draining(process, url)
    finally:
        process.kill()
        process.wait()


def test_connections_without_a_whole_request_are_closed_in_the_end(start):
    api = start(Settings(body_seconds=0.2))
    with api.raw() as mute, api.raw() as slow, api.raw() as second:
        slow.sendall(b"GET / HT")
        second.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nPOST /v1")
        assert mute.recv(100) == slow.recv(100) == b""
        assert b"".join(iter(lambda: second.recv(1 << 16), b"")).startswith(b"HTTP/1.1 200")
    assert api.complete(prompt=PROMPT, max_tokens=2).status_code == 200


def test_a_connection_that_says_nothing_is_no_matter(api):
    host, port = api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as silent:
        silent.sendall(b"\xff\xfe\x00 nonsense\r\n\r\n")
        assert api.complete(prompt=PROMPT, max_tokens=1).status_code == 200


@needs.mark("POSIX")
def test_a_drain_of_0_seconds_ends_running_requests_at_once():
    process, url = begin("--drain_seconds", "0", "--quiet", "--no-ui")
    try:
        assert httpx.get(url).status_code == 404
        ends_a_stream_by_draining(process, url)
    finally:
        process.kill()
        process.wait()


def test_runs_cannot_be_watched_without_pages(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["serve", "--no_ui", "--watch", str(tmp_path)])
    assert "--no_ui" in capsys.readouterr().err


@needs.mark("POSIX")
def test_a_second_signal_ends_running_requests_with_an_error_and_no_word_in_the_log():
    process, url = begin("--drain_seconds", "600", "--quiet")
    try:
        body = {**LONG, "n": 64}
        with (
            ThreadPoolExecutor(1) as clients,
            httpx.stream("POST", f"{url}/v1/completions", json={**body, "stream": True}, timeout=60) as answer,
        ):
            whole = clients.submit(httpx.post, f"{url}/v1/completions", json=body, timeout=60)
            lines = answer.iter_lines()
            next(lines)
            assert eventually(lambda: 'outstanding_samples{model="tales"} 128.0' in httpx.get(f"{url}/metrics").text)
            process.send_signal(signal.SIGTERM)
            assert eventually(lambda: httpx.get(f"{url}/health").status_code == 503)
            process.send_signal(signal.SIGTERM)
            assert "draining" in [line for line in lines if line][-1]
            assert whole.result().status_code == 503 and whole.result().json()["error"]["code"] == "draining"
        assert process.wait(20) == 0 and process.stderr
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.wait()


@needs.mark("POSIX")
@pytest.mark.slow
@pytest.mark.parametrize("signals", [1, 3])
def test_a_client_that_never_reads_does_not_hold_up_the_end(signals):
    process, url = begin("--drain_seconds", "0.2", "--quiet")
    try:
        host, port = url.removeprefix("http://").split(":")
        with socket.socket() as mute:
            mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            mute.connect((host, int(port)))
            body = json.dumps({**LONG, "n": 16, "max_tokens": 300, "stream": True, "logprobs": 20}).encode()
            head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            mute.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert b" 200 " in mute.recv(100)
            assert eventually(lambda: 'outstanding_samples{model="tales"} 0.0' in httpx.get(f"{url}/metrics").text, 60)
            for _ in range(signals):
                process.send_signal(signal.SIGTERM)
                time.sleep(0.3)
            assert process.wait(30) == 0 and process.stderr
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("stream", [True, False])
def test_tokens_that_were_drawn_for_a_client_that_left_are_logged(api, caplog, stream):
    caplog.set_level("INFO", "gpt2lab.serving")
    with api.raw({**LONG, "n": 4, "stream": stream}) as connection:
        before = api.metric("gpt2lab_drawn_tokens_total")
        assert eventually(lambda: api.metric("gpt2lab_drawn_tokens_total") > before + 40)
        if stream:
            assert b" 200 " in connection.recv(1000)
    assert eventually(lambda: "gone=True" in caplog.text)
    (drawn,) = re.findall(r"/v1/completions .* drawn=(\d+)", caplog.text)
    assert int(drawn) > 40
