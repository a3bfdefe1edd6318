"""Send honest requests to ``gpt2lab serve`` beside clients that stall, flood or leave, and check every answer.

    python benchmarks/soak_rude.py [--model tales] [--seconds 600] [--clients 64] [--seed 0] [--allow_mb 32]

The server is a separate process. A third of the clients are rude, in three equal parts: some send requests and read
nothing; some hold many connections and send malformed heads, large, unfinished and refused bodies; some close or reset
their connection in the middle of a stream. The others send requests from a fixed list, whose answers were recorded
while nobody else was there. Each must be answered with 200 and the same text and log-probabilities. The server's
resident memory is read twice a second. Requests use memory only briefly, so the minimum over a period counts. Growth
is the minimum of the last tenth of the time minus that of the tenth after the first (in ten minutes: the second
minute). The exit status is 1 if an answer was wrong, if growth exceeds ``--allow_mb``, if the log has a traceback, or
if the server did not exit with 0 at SIGTERM. Times are reported, not checked. Linux only. The last line is JSON.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import resource
import signal
import socket
import struct
import sys
import threading
import time
from collections import Counter, defaultdict
from contextlib import ExitStack, suppress
from typing import Any

from soak_serving import PATIENCE_SECONDS, PROMPTS, begin, open_files, resident_mb

SMALL_TOKENS = 5
IDLE_CONNECTIONS = 160
"""Connections that a flooding client holds; with 64 clients, together more than the server accepts by default."""
HOLD_SECONDS = 70  # longer than the server waits for a client that reads nothing

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BAD_HEADS = (
    b"nonsense\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
    b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 200 + b"\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    HEAD + b"Content-Length: 99999999999\r\n\r\n{",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
)
BAD_BODIES = (
    b'{"prompt": "' + b"x" * 2_000_000 + b'"}',
    b'{"prompt": [' + b"262," * 400_000 + b"262]}",
    b'{"prompt": "' + b"x" * 5_000_000 + b'"}',
    b'{"unknown": 1}',
    b"{",
)

Address = tuple[str, int]


def requests() -> list[dict[str, Any]]:
    """Return the honest requests; the first half is for a few tokens."""
    small = [{"prompt": prompt, "max_tokens": SMALL_TOKENS, "seed": n} for n, prompt in enumerate(PROMPTS * 2)]
    large: list[dict[str, Any]] = [{"n": 2}, {"temperature": 0}, {"logprobs": 3, "echo": True}, {"best_of": 2}]
    large += [{"presence_penalty": 0.5, "top_k": 40}]
    large += [{**each, "stream": True} for each in large if "best_of" not in each] + [{"stop": ["\n\n", "the"]}]
    return small + [
        {"prompt": PROMPTS[n % len(PROMPTS)], "max_tokens": 20 + 5 * n, "seed": n, **each}
        for n, each in enumerate(large)
    ]


def ask(address: Address, body: dict[str, Any]) -> tuple[int, Any]:
    """Return the status of an answer, and of each choice what depends on the request alone."""
    connection = http.client.HTTPConnection(*address, timeout=PATIENCE_SECONDS)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        data = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        return answer.status, data[:200].decode(errors="replace")
    if not body.get("stream"):
        return 200, json.loads(data)["choices"]
    events = data.split(b"\n\n")
    if events[-2:] != [b"data: [DONE]", b""]:
        return 200, f"a stream ended with {data[-100:]!r}"
    choices = [json.loads(event.removeprefix(b"data: "))["choices"][0] for event in events[:-2]]
    logprobs = [choice["logprobs"] for choice in choices if choice["logprobs"]]
    scores = [pair for each in logprobs for pair in zip(each["tokens"], each["token_logprobs"], strict=True)]
    texts: dict[int, str] = defaultdict(str)
    for choice in choices:
        texts[choice["index"]] += choice["text"]
    return 200, [sorted(texts.items()), scores]


class Client(threading.Thread):
    """A client that does the same again and again until ``stopping`` is set."""

    def __init__(self, address: Address, seed: int, stopping: threading.Event) -> None:
        super().__init__(daemon=True)
        self.count = 0
        self._address = address
        self._random = random.Random(seed)
        self._stopping = stopping

    def run(self) -> None:
        while not self._stopping.wait(self._random.random() / 2):
            self.once()
            self.count += 1

    def once(self) -> None:
        raise NotImplementedError

    def _open(self, buffer: int | None = None) -> socket.socket:
        connection = socket.socket()
        if buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        connection.settimeout(20)
        connection.connect(self._address)
        return connection

    def _post(self, connection: socket.socket, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        connection.sendall(HEAD + f"Content-Length: {len(data)}\r\n\r\n".encode() + data)


class Honest(Client):
    """A client that sends requests, reads the answers, and compares them with those that were recorded."""

    def __init__(self, address: Address, seed: int, stopping: threading.Event, known: list[Any]) -> None:
        super().__init__(address, seed, stopping)
        self.wrong: list[str] = []
        self.small_seconds: list[float] = []
        self._known = known

    def once(self) -> None:
        body, expected = self._random.choice(self._known)
        began = time.perf_counter()
        try:
            found = ask(self._address, body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            found = 0, repr(error)
        if found != (200, expected):
            self.wrong.append(f"{body}: {str(found)[:300]}")
        elif body["max_tokens"] == SMALL_TOKENS:
            self.small_seconds.append(time.perf_counter() - began)


class Stalling(Client):
    """A client that asks for much and reads nothing."""

    def once(self) -> None:
        with suppress(OSError), self._open(4096) as connection:
            body = {"prompt": "The king", "n": 2, "max_tokens": 200, "ignore_eos": True, "logprobs": 20}
            self._post(connection, {**body, "stream": self._random.random() < 0.5})
            self._stopping.wait(HOLD_SECONDS)


class Flooding(Client):
    """A client that holds many connections, and sends what is malformed, too large or never complete."""

    def once(self) -> None:
        with ExitStack() as held:
            for _ in range(IDLE_CONNECTIONS):
                with suppress(OSError):
                    connection = held.enter_context(self._open())
                    if self._random.random() < 0.2:
                        connection.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n" + b"x" * 100_000)
            for _ in range(20):
                with suppress(OSError), self._open() as connection:
                    if self._random.random() < 0.5:
                        connection.sendall(self._random.choice(BAD_HEADS))
                    else:
                        data = self._random.choice(BAD_BODIES)
                        connection.sendall(HEAD + f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
                    connection.recv(1000)
                if self._stopping.wait(0.1):
                    return


class Leaving(Client):
    """A client that closes or resets its connection in the middle of a stream."""

    def once(self) -> None:
        with suppress(OSError), self._open() as connection:
            self._post(connection, {"prompt": "The fox", "n": 4, "max_tokens": 400, "ignore_eos": True, "stream": True})
            for _ in range(self._random.randint(0, 20)):
                connection.recv(1000)
            if self._random.random() < 0.5:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def crowd(address: Address, count: int, seed: int, stopping: threading.Event, known: list[Any]) -> list[Client]:
    """Return ``count`` clients, a third of which is rude."""
    kinds = [(Stalling, Flooding, Leaving)[n % 3] for n in range(count // 3)]
    rude: list[Client] = [kind(address, seed + n, stopping) for n, kind in enumerate(kinds)]
    return rude + [Honest(address, seed + n, stopping, known) for n in range(len(rude), count)]


def watch(pid: int, seconds: float) -> tuple[list[tuple[float, float]], int]:
    """Return the server's memory in megabytes with its times, and the most files that it had open."""
    began, noted, files, printed = time.monotonic(), [], 0, 0.0
    while (elapsed := time.monotonic() - began) < seconds:
        noted.append((elapsed, resident_mb(pid)))
        files = max(files, open_files(pid))
        if elapsed >= printed:
            print(f"{elapsed:7.1f} s  {noted[-1][1]:7.1f} MB  {files:5} files", flush=True)
            printed += seconds / 20
        time.sleep(0.5)
    return noted, files


def quantile(values: list[float], part: float) -> float:
    """Return the value below which ``part`` of ``values`` lies; NaN without any."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))] if values else float("nan")


def report(clients: list[Client], noted: list[tuple[float, float]], seconds: float, files: int) -> dict[str, Any]:
    """Return the figures."""
    honest = [client for client in clients if isinstance(client, Honest)]
    waits = [wait for client in honest for wait in client.small_seconds]
    after = min(mb for at, mb in noted if seconds / 10 <= at < seconds / 5)
    end = min(mb for at, mb in noted if at >= seconds * 9 / 10)
    rude: Counter[str] = Counter()
    for client in clients:
        rude[type(client).__name__.lower()] += client.count
    return {
        "seconds": seconds,
        "clients": len(clients),
        "honest": rude.pop("honest", 0),
        "wrong": [each for client in honest for each in client.wrong],
        "small": len(waits),
        "small_p50_s": round(quantile(waits, 0.5), 3),
        "small_p99_s": round(quantile(waits, 0.99), 3),
        **rude,
        "after_mb": round(after, 1),
        "end_mb": round(end, 1),
        "most_mb": round(max(mb for _, mb in noted), 1),
        "most_files": files,
    }


def table(found: dict[str, Any]) -> str:
    """Return the figures as a table for docs/serve.md."""
    rows = [
        ("clients, rude ones included", f"{found['clients']} for {found['seconds']:g} s"),
        ("honest requests, of them answered wrongly or not at all", f"{found['honest']:,}, {len(found['wrong'])}"),
        (f"seconds of requests for {SMALL_TOKENS} tokens: median, 99th percentile", "small_p50_s", "small_p99_s"),
        ("times that clients stalled, flooded, left", "stalling", "flooding", "leaving"),
        ("resident memory in MB: at first, at the end, at most", "after_mb", "end_mb", "most_mb"),
        ("most open files", "most_files"),
        ("tracebacks in the log, of lines", "tracebacks", "log_lines"),
    ]
    lines = [f"| {row[0]} | {', '.join(str(found.get(name, name)) for name in row[1:])} |" for row in rows]
    return "\n".join(["| | |", "|---|---|", *lines])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tales")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--threads", type=int, help="of the server's engine; default: the physical cores")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--allow_mb", type=float, default=32.0, help="growth in MB that still passes")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    process, address = begin(arguments.model, arguments.threads)
    assert process.stderr
    log: list[str] = []
    reading = threading.Thread(target=log.extend, args=(process.stderr,), daemon=True)
    reading.start()
    stopping = threading.Event()
    try:
        known = [(body, ask(address, body)[1]) for body in requests()]
        clients = crowd(address, arguments.clients, 1000 * arguments.seed, stopping, known)
        for client in clients:
            client.start()
        noted, files = watch(process.pid, arguments.seconds)
        stopping.set()
        for client in clients:
            client.join(PATIENCE_SECONDS)
        process.send_signal(signal.SIGTERM)
        status = process.wait(PATIENCE_SECONDS)
        reading.join()
    finally:
        process.kill()
    found = report(clients, noted, arguments.seconds, files)
    found |= {"tracebacks": sum("Traceback" in line for line in log), "log_lines": len(log), "exit_status": status}
    print(*log[-20:], sep="", end="")
    print(*found["wrong"][:10], sep="\n")
    print(table(found))
    print(json.dumps({**found, "wrong": found["wrong"][:10]}))
    grown = found["end_mb"] - found["after_mb"] > arguments.allow_mb
    return int(grown or bool(found["wrong"]) or not found["small"] or bool(found["tracebacks"]) or status != 0)


if __name__ == "__main__":
    sys.exit(main())
