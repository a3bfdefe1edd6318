"""After every kind of failure: the right status, nothing held, and a server that goes on."""

from __future__ import annotations

import gc
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

import needs

from .conftest import PROMPT, eventually
from .test_faults import LONG, begin

STREAM = {**LONG, "n": 4, "stream": True, "logprobs": 20}


@pytest.fixture
def nothing_left(api, tales):
    """Fail if the server holds more after the test than before: samples, keys and values, tasks, connections."""
    assert api.idle()
    prompts = next(iter(api.service.models)).prompts

    def held() -> int:
        """Return the bytes of keys and values that are not kept for later prompts."""
        return tales.engine.kv_cache_bytes - prompts.held_bytes

    before = held()
    yield
    assert api.idle(), "samples run on"
    assert eventually(lambda: not api.worker._readings and not api.worker._scheduler.busy)
    assert eventually(lambda: held() <= before), "keys and values are held"
    assert eventually(lambda: not api.server.server_state.tasks), "requests are still being answered"
    api.http.close()  # its own connections are not counted
    api.http = httpx.Client(base_url=api.url, timeout=30)
    assert eventually(lambda: not api.server.server_state.connections), "connections are still open"
    assert api.complete(prompt=PROMPT, max_tokens=1).status_code == 200


pytestmark = pytest.mark.usefixtures("nothing_left")


def status_of(connection: socket.socket) -> int:
    return int(connection.recv(1000).split(b" ", 2)[1])


def send(connection: socket.socket, body: bytes, length: int | None = None) -> None:
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    connection.sendall(head.encode() + f"Content-Length: {len(body) if length is None else length}\r\n\r\n".encode())
    with suppress(OSError):  # it may be refused before all is sent
        connection.sendall(body)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"prompt": "a", ', 400),
        (b'{"prompt": "\xff\xfe\x80"}', 400),
        (b'{"prompt": "\\ud800"}', 400),
        (b'{"prompt": "a", "n": 1000000}', 400),
        (b'{"prompt": "a", "n": 100000000000000000000}', 400),
        (b'{"prompt": ["a"], "best_of": 1048576}', 400),
        (b'{"prompt": "' + b"x" * 10_000_000 + b'"}', 413),
        (b'{"prompt": "' + b"x" * 100_000 + b'"}', 400),
        (b'{"prompt": [' + b"262," * 100_000 + b"262]}", 400),
    ],
    ids=["cut", "no UTF-8", "half a pair", "huge n", "n of 67 bits", "huge best_of", "10 MB", "100 kB", "100,001 ids"],
)
def test_a_request_that_cannot_be_taken(api, body, status):
    with api.raw() as connection:
        send(connection, body)
        assert status_of(connection) == status


def test_a_body_that_claims_to_be_huge_is_refused_at_once(api):
    with api.raw() as connection:
        send(connection, b"{", length=1 << 50)
        assert status_of(connection) == 413


def test_clients_that_vanish_mid_stream(api):
    """Close the connection, or reset it, as a killed process with unread data does."""
    for reset in (False, True):
        connections = [api.raw(STREAM) for _ in range(4)]
        for connection in connections:
            assert b" 200 " in connection.recv(1000)
        assert api.worker.outstanding == 16
        for connection in connections:
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        assert eventually(lambda: not api.worker.outstanding, 5)


@needs.mark("POSIX")
def test_a_client_that_is_killed_mid_stream(api):
    script = (
        "import json, sys, urllib.request\n"
        "request = urllib.request.Request(sys.argv[1], sys.argv[2].encode(), {'Content-Type': 'application/json'})\n"
        "with urllib.request.urlopen(request) as answer:\n"
        "    print(answer.readline(), flush=True)\n"
        "    sys.stdin.read()\n"
    )
    body = httpx.Request("POST", "http://x", json=STREAM).content.decode()
    command = [sys.executable, "-S", "-c", script, f"{api.url}/v1/completions", body]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout and "choices" in client.stdout.readline()
        assert api.worker.outstanding == 4
        client.send_signal(signal.SIGKILL)
        client.wait()
        assert eventually(lambda: not api.worker.outstanding, 5)


def test_a_client_that_leaves_before_its_turn(api):
    """Leave while others fill the batch and the request waits."""
    with api.raw({**LONG, "n": 64, "stream": True}) as first:
        assert b" 200 " in first.recv(1000)
        with api.raw({**STREAM, "n": 8}):
            assert eventually(lambda: api.worker.outstanding == 72)
        assert eventually(lambda: api.worker.outstanding == 64)


def last_line(url: str, stays: bool) -> str | None:
    """Return the last line of a stream; None if the client left after the first line, or the stream came too late."""
    body = {**LONG, "max_tokens": 150, "stream": True}
    with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as answer:
        if answer.status_code == 503:
            return None
        lines = (line for line in answer.iter_lines() if line)
        next(lines)
        return [*lines][-1] if stays else None


@needs.mark("POSIX")
def test_sigterm_under_load_ends_every_stream_and_the_process():
    """Stream sixteen requests, eight at a time; every fourth client leaves; more requests come."""
    process, url = begin("--max_batch", "8")
    try:
        with ThreadPoolExecutor(16) as clients:
            answers = [clients.submit(last_line, url, number % 4 > 0) for number in range(16)]
            ten_or_more = re.compile(r'^gpt2lab_outstanding_samples{model="tales"} 1\d\.0$', re.MULTILINE)
            assert eventually(lambda: ten_or_more.search(httpx.get(f"{url}/metrics").text) is not None)
            process.send_signal(signal.SIGTERM)
            assert eventually(lambda: httpx.get(f"{url}/health").status_code == 503)
            late = [httpx.post(f"{url}/v1/completions", json=LONG).status_code for _ in range(3)]
        assert late == [503] * 3
        ends = [answer.result() for answer in answers]
        assert set(ends) == {None, "data: [DONE]"} and ends.count(None) <= 4 + 6
        assert process.wait(20) == 0 and process.stderr
        log = process.stderr.read()
        assert "Traceback" not in log and "ERROR" not in log
    finally:
        process.kill()
        process.wait()


@needs.mark("Linux")
def test_many_faults_leave_no_thread_and_no_open_file(api):
    def held() -> tuple[int, int]:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    def round_of_faults() -> None:
        for body in (b"{", b'{"prompt": "\xff"}', b'{"n": 99999}'):
            with api.raw() as connection:
                send(connection, body)
                assert status_of(connection) == 400
        for _ in range(3):
            with api.raw({**STREAM, "n": 1}) as connection:
                assert b" 200 " in connection.recv(1000)
        assert api.idle()
        assert eventually(lambda: not api.server.server_state.tasks)

    round_of_faults()
    assert api.http.get("/health").status_code == 200
    before = held()
    for _ in range(5):
        round_of_faults()
    assert eventually(lambda: all(now <= then for now, then in zip(held(), before, strict=True))), (before, held())
