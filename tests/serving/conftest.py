"""Servers in threads of this process, on ports of their own, with the embedded model."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Thread
from typing import Any

import pytest

import needs

needs.check("fastapi", "uvicorn", "httpx")  # for all tests in this folder

import httpx

import gpt2lab
from gpt2lab.serving.server import Server, listen_on, url_of
from gpt2lab.serving.service import Service
from gpt2lab.serving.settings import Settings

PROMPT = "Once upon a time"


@dataclass
class Running:
    """A running server with its ``url``."""

    url: str
    service: Service
    server: Server
    http: httpx.Client

    @property
    def worker(self):
        return next(iter(self.service.models)).worker

    def complete(self, **body: Any) -> httpx.Response:
        return self.http.post("/v1/completions", json=body)

    def events(self, **body: Any) -> list[Any]:
        """Return the chunks of a stream, without ``[DONE]``, which is checked."""
        with self.http.stream("POST", "/v1/completions", json={**body, "stream": True}) as answer:
            assert answer.status_code == 200
            lines = [line for line in answer.iter_lines() if line]
        assert lines.pop() == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines]

    def metric(self, name: str) -> float:
        """Return the sum of a counter over its labels."""
        lines = self.http.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))

    def raw(self, body: dict[str, Any] | None = None, buffer: int | None = None) -> socket.socket:
        """Open a separate connection and send ``body`` on it."""
        host, port = self.url.removeprefix("http://").split(":")
        connection = socket.socket()
        if buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        connection.settimeout(20)
        connection.connect((host, int(port)))
        if body is not None:
            data = json.dumps(body).encode()
            head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            connection.sendall(head.encode() + f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
        return connection

    def idle(self, seconds: float = 10) -> bool:
        """Return whether all samples end within ``seconds``."""
        return eventually(lambda: not self.worker.outstanding and not self.worker._running.takers, seconds)


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture(scope="session")
def tales():
    return gpt2lab.load("tales", threads=1)  # several would wait for each other where other tests use the cores


@pytest.fixture(scope="session")
def start(tales) -> Iterator[Callable[..., Running]]:
    """Provide ``start(settings, models=…, runs=…, send_buffer=bytes)``; its servers stop at the end of all tests."""
    running: list[tuple[Running, Thread]] = []

    def begin(
        settings: Settings | None = None, models: Any = None, runs: Any = (), send_buffer: int | None = None
    ) -> Running:
        service = Service(models or [("tales", tales)], settings or Settings(), runs)
        bound = listen_on("127.0.0.1", 0)
        if send_buffer:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)  # connections inherit it
        server = Server(service, linger=1)
        thread = Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        assert eventually(lambda: server.started)
        running.append(
            (Running(url_of(bound), service, server, httpx.Client(base_url=url_of(bound), timeout=30)), thread)
        )
        return running[-1][0]

    yield begin
    for each, _ in running:
        each.http.close()
        each.server.should_exit = True
    deadline = time.monotonic() + 20
    for _, thread in running:
        thread.join(max(0.0, deadline - time.monotonic()))
    assert not any(thread.is_alive() for _, thread in running), "a server did not end when it was told to"


@pytest.fixture(scope="session")
def api(start) -> Running:
    """Provide a server with the default settings."""
    return start()
