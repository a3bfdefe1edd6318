"""Send mixed requests to ``gpt2lab serve`` for minutes, faulty ones included, and check that its memory stays flat.

    python benchmarks/soak_serving.py [--model tales] [--minutes 10] [--clients 8] [--seed 0] [--allow_mb 8]

The server is a separate process. Each client sends one random request after the other: whole answers, streams with log-
probabilities, streams that it abandons half-way or reads slowly, echoes, logits, the vocabulary, pages, tokens, and
bodies that are truncated, too long, not UTF-8 or absurd. Every status is checked. The server's resident memory is read
twice a second. Requests need some memory only for a moment, so the minimum of every 30th of the time counts; the
maximum is reported beside it. Growth is the median of the last third of these minima minus that of the second third;
during the first third, buffers reach their size. The exit status is 1 if growth exceeds ``--allow_mb``, if any status
was wrong, or if the server did not exit with 0 at SIGTERM under this load. The last line is JSON. Linux only.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

SAMPLES = 30
PATIENCE_SECONDS = 600  # for a busy machine
PROMPTS = ("Once upon a time", "The king", "It was a dark night, and the fox", "", "“Why,” said the old woman, “")


class Client(threading.Thread):
    """A client that sends requests until ``stopping`` is set, and counts its requests and failures."""

    def __init__(self, address: tuple[str, int], model: str, seed: int, stopping: threading.Event) -> None:
        super().__init__(daemon=True)
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._address = address
        self._model = model
        self._random = random.Random(seed)
        self._stopping = stopping
        self._kinds: dict[Callable[[], None], int] = {
            self.whole: 20,
            self.stream: 20,
            self.left: 15,
            self.slow: 3,
            self.echo: 6,
            self.logits: 20,
            self.vocabulary: 1,
            self.page: 5,
            self.tokens: 10,
            self.malformed: 15,
            self.too_long: 2,
            self.metrics: 3,
        }

    def run(self) -> None:
        while not self._stopping.is_set():
            (kind,) = self._random.choices([*self._kinds], [*self._kinds.values()])
            try:
                kind()
            except (OSError, http.client.HTTPException) as error:
                if not self._stopping.is_set():
                    self.wrong.append(f"{kind.__name__}: {error!r}")
            else:
                self.counts[kind.__name__] += 1

    # ---- requests ---------------------------------------------------------------------------------------------------

    def whole(self) -> None:
        self._expect(200, self._body(n=self._random.choice([1, 1, 4]), max_tokens=self._random.randint(0, 60)))

    def stream(self) -> None:
        with self._ask(self._streamed()) as (_, answer):
            self._check(200, answer.status)
            last = [line for line in answer if line.strip()][-1]
            if last != b"data: [DONE]\n" and not self._stopping.is_set():
                self.wrong.append(f"a stream ended with {last[:100]!r}")

    def left(self) -> None:
        with self._ask(self._streamed(max_tokens=400, n=self._random.choice([1, 4]))) as (connection, answer):
            for _ in range(self._random.randint(0, 20)):
                answer.readline()
            if self._random.random() < 0.5 and connection.sock:
                connection.sock.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER of 0: a reset, no goodbye

    def slow(self) -> None:
        with self._ask(self._streamed(max_tokens=30)) as (_, answer):
            for _ in answer:
                time.sleep(0.05)

    def echo(self) -> None:
        prompts = [self._random.choices(range(50257), k=self._random.randint(1, 200)) for _ in range(2)]
        self._expect(200, self._body(prompt=prompts, echo=True, logprobs=2, max_tokens=self._random.choice([0, 4])))

    def logits(self) -> None:
        ids = self._random.choices(range(50257), k=self._random.randint(0, 300))
        self._expect(200, {"model": self._model, "tokens": ids}, "/playground/logits")

    def vocabulary(self) -> None:
        self._expect(200, None, "/playground/vocabulary")

    def page(self) -> None:
        self._expect(200, None, self._random.choice(["/", "/docs", "/v1/models", "/health", "/openapi.json"]))
        self._expect(404, None, self._random.choice(["/page/nothing.js", "/page/..%2fapp.py", "/v3"]))

    def tokens(self) -> None:
        self._expect(200, {"prompt": self._random.choice(PROMPTS)}, "/tokenize")
        self._expect(200, {"tokens": self._random.choices(range(50257), k=20)}, "/detokenize")
        self._expect(404, {"messages": []}, "/v1/chat/completions")

    def malformed(self) -> None:
        bodies: list[Any] = [b"{", b"", b'{"prompt": "\xff\xfe"}', b'{"prompt": "\\ud800"}', {"prompt": [1, "a"]}]
        bodies += [{"n": 10**6}, {"max_tokens": 10**6}, {"temperature": -1}, {"prompt": "x" * 100_000}]
        self._expect(400, self._random.choice(bodies))

    def too_long(self) -> None:
        self._expect(413, b'{"prompt": "' + b"x" * 10_000_000 + b'"}')

    def metrics(self) -> None:
        self._expect(200, None, "/metrics")

    # ---- sending and checking them ----------------------------------------------------------------------------------

    def _body(self, **more: Any) -> dict[str, Any]:
        body: dict[str, Any] = {"prompt": self._random.choice(PROMPTS), "seed": self._random.getrandbits(30)}
        body |= {"temperature": self._random.choice([0, 0.8, 1.0]), "top_k": self._random.choice([0, 40])}
        body |= {"presence_penalty": self._random.choice([0, 0.5]), "stop": self._random.choice([None, ["\n\n"]])}
        return {"model": self._model, **body, **more}

    def _streamed(self, **more: Any) -> dict[str, Any]:
        shown = {"logprobs": 20, "return_tokens_as_token_ids": True} if self._random.random() < 0.5 else {}
        body = self._body(max_tokens=self._random.randint(1, 100), **shown)
        return {**body, "stream": True, "stream_options": {"include_usage": True}, **more}

    def _ask(self, body: Any, path: str = "/v1/completions") -> _Exchange:
        return _Exchange(self._address, path, body)

    def _expect(self, status: int, body: Any, path: str = "/v1/completions") -> None:
        with self._ask(body, path) as (_, answer):
            answer.read()
            self._check(status, answer.status)

    def _check(self, status: int, found: int) -> None:
        if found != status and not (found == 503 and self._stopping.is_set()):
            self.wrong.append(f"{status} was expected, {found} came")


class _Exchange:
    """A request on its own connection, which is closed no matter how much of the answer has been read."""

    def __init__(self, address: tuple[str, int], path: str, body: Any) -> None:
        self._connection = http.client.HTTPConnection(*address, timeout=PATIENCE_SECONDS)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        if body is None:
            self._connection.request("GET", path)
        else:
            self._connection.request("POST", path, data, headers)

    def __enter__(self) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        self._answer = self._connection.getresponse()
        return self._connection, self._answer

    def __exit__(self, *_: object) -> None:
        self._answer.close()
        self._connection.close()


def resident_mb(pid: int) -> float:
    """Return the memory that a process holds now."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024 / 1e6


def open_files(pid: int) -> int:
    """Return the number of files and sockets that a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def begin(model: str, threads: int | None) -> tuple[subprocess.Popen[str], tuple[str, int]]:
    """Start the server; return its process and its address."""
    command = [sys.executable, "-m", "gpt2lab", "serve", "--port", "0", "--quiet", "--model_name", model]
    command += ["--prompt_cache", "16"]  # so little that it is full before growth is measured
    command += ["--threads", str(threads)] if threads else []
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    for line in process.stderr:
        if found := re.search(r"http://([\d.]+):(\d+)", line):
            return process, (found[1], int(found[2]))
    raise SystemExit("the server did not start")


def watch(process: subprocess.Popen[str], clients: list[Client], seconds: float) -> list[tuple[float, float, int]]:
    """Return the least and the most megabytes in each of :data:`SAMPLES` parts of the time, and the open files then."""
    began = time.monotonic()
    noted: list[tuple[float, float, int]] = []
    sizes: list[float] = []
    while len(noted) < SAMPLES and process.poll() is None:
        time.sleep(0.5)
        sizes.append(resident_mb(process.pid))
        elapsed = time.monotonic() - began
        if elapsed < (len(noted) + 1) * seconds / SAMPLES:
            continue
        noted.append((min(sizes), max(sizes), open_files(process.pid)))
        sizes.clear()
        asked = sum(sum(client.counts.values()) for client in clients)
        least, most, files = noted[-1]
        print(f"{elapsed:7.1f} s  {least:7.1f} to {most:.1f} MB  {files:4} files  {asked} asked", flush=True)
    return noted


def stop(process: subprocess.Popen[str], clients: list[Client], stopping: threading.Event) -> tuple[int, str]:
    """Send SIGTERM while all clients still send requests; return the exit status and the server's output."""
    stopping.set()
    process.send_signal(signal.SIGTERM)
    assert process.stderr
    said = process.stderr.read()
    for client in clients:
        client.join(PATIENCE_SECONDS)
    return process.wait(PATIENCE_SECONDS), said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tales")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--threads", type=int, help="of the server's engine; default: the physical cores")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--allow_mb", type=float, default=8.0, help="growth in MB that still passes")
    arguments = parser.parse_args()
    process, address = begin(arguments.model, arguments.threads)
    try:
        at_start = resident_mb(process.pid)
        print(f"    0.0 s  {at_start:7.1f} MB  {open_files(process.pid):4} files", flush=True)
        stopping = threading.Event()
        name = Path(arguments.model).name.removesuffix(".gguf")
        clients = [Client(address, name, 1000 * arguments.seed + i, stopping) for i in range(arguments.clients)]
        for client in clients:
            client.start()
        noted = watch(process, clients, 60 * arguments.minutes)
        status, said = stop(process, clients, stopping)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    sizes = [least for least, _, _ in noted]
    third = len(sizes) // 3
    growth = statistics.median(sizes[2 * third :]) - statistics.median(sizes[third : 2 * third])
    wrong = [each for client in clients for each in client.wrong]
    counts = sum((client.counts for client in clients), Counter[str]())
    report = {
        "minutes": arguments.minutes,
        "rss_mb": [round(size, 1) for size in (at_start, *sizes)],
        "most_mb": [round(most, 1) for _, most, _ in noted],
        "growth_mb": round(growth, 2),
        "open_files": [noted[0][2], noted[-1][2]],
        "asked": dict(counts),
        "wrong": wrong[:10],
        "exit_status": status,
    }
    print(said, end="")
    print(json.dumps(report))
    return int(growth > arguments.allow_mb or bool(wrong) or status != 0 or "Traceback" in said)


if __name__ == "__main__":
    sys.exit(main())
