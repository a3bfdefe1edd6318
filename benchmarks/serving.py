"""Measure ``gpt2lab serve`` with streaming clients, beside the engine alone and llama.cpp's server, in the same run.

    python benchmarks/serving.py [--size 124M] [--precision int8] [--clients 16 64] [--rounds 3]
    python benchmarks/serving.py --llama_server PROGRAM [--models FOLDER]
    python benchmarks/serving.py --peer http://127.0.0.1:8081

Uses random weights of the real shape. N clients stream at once. Each requests ``--requests`` completions of
``--tokens`` tokens, one after the other, each with a different prompt. Servers and clients are separate processes on
one machine. Tokens per second are all tokens that arrived, over the time from the first request to the last byte. The
time to the first token is that from a request, with its connection, to the first event with text. "engine" is a batch
of 32 on the scheduler, without a server. llama.cpp's server gets the same weights as a GGUF file, which is made in
``--models`` if it is missing, the same number of threads, and one slot per client, which suits it best. ``--peer``
measures any other running server with ``/v1/completions``. Every round measures everything once, in turns. Prints
medians; times to the first token are those of all rounds together. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PROMPT_TOKENS = 16
ENGINE_BATCH = 32
TOP_K = 40  # without it llama.cpp sorts the whole vocabulary for every token, and the benchmark would measure that


@dataclass
class Result:
    """One client's observations."""

    first_token_seconds: list[float] = field(default_factory=list)
    tokens: int = 0
    failures: int = 0


def prompt_of(number: int) -> list[int]:
    """Return ids that no other request begins with."""
    ids = random.Random(number)
    return [ids.randrange(50000) for _ in range(PROMPT_TOKENS)]


class Client:
    """A client that streams completions one after the other, each on its own connection; driven by :func:`load`.

    Events are counted, not parsed, because the client computes on the cores of the server.
    """

    def __init__(self, address: tuple[str, int], bodies: list[bytes]) -> None:
        self.result = Result()
        self._address = address
        self._bodies = bodies[::-1]
        self.socket = self._next()

    def _next(self) -> socket.socket | None:
        """Return a connection on which the next request was sent; None if no request is left."""
        if not self._bodies:
            return None
        body = self._bodies.pop()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {self._address[0]}\r\nContent-Type: application/json\r\n"
        connection = socket.create_connection(self._address)
        self._began, self._first = time.perf_counter(), False
        self._events, self._tail = 0, b""
        connection.sendall(head.encode() + f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        connection.setblocking(False)
        return connection

    def read(self) -> bool:
        """Take the bytes that arrived; return whether the connection ended and :attr:`socket` is another or None."""
        assert self.socket
        try:
            part = self.socket.recv(1 << 16)
        except BlockingIOError:
            return False
        except OSError:
            part = b""
        if not part:
            self._finish()
            self.socket = self._next()
            return True
        events = part.count(b"data: {")  # a mark split over two parts is missed; the server's own count decides
        if events and not self._first:
            self._first = True
            self.result.first_token_seconds.append(time.perf_counter() - self._began)
        self._events += events
        self._tail = part if len(part) > 1500 else (self._tail + part)[-3000:]
        return False

    def _finish(self) -> None:
        if not self._first or b"[DONE]" not in self._tail:
            self.result.failures += 1
            return
        said = self._tail.rpartition(b'"completion_tokens":')[2].split(b",")[0].split(b"}")[0].strip()
        self.result.tokens += int(said) if said.isdigit() else self._events


def body_of(number: int, tokens: int, model: str | None, peer: bool) -> bytes:
    """Return one request; a peer's has the fields that make it do the same work."""
    body: dict[str, Any] = {"prompt": prompt_of(number), "max_tokens": tokens, "seed": number, "stream": True}
    body |= {"stream_options": {"include_usage": True}, "temperature": 1.0, "ignore_eos": True}
    body |= {"top_k": TOP_K, "top_p": 1.0, "min_p": 0.0}
    body |= {"model": model} if model else {}
    body |= {"cache_prompt": False} if peer else {}
    return json.dumps(body).encode()


@dataclass
class Load:
    """The observations of all clients of one load."""

    tokens_s: float
    firsts: list[float]
    failures: int


def load(url: str, clients: int, requests: int, tokens: int, model: str | None, peer: bool, first: int) -> Load:
    """Run all clients at once; their requests are numbered from ``first`` on."""
    parts = urlsplit(url)
    address = parts.hostname or "", parts.port or 80
    bodies = [body_of(first + number, tokens, model, peer) for number in range(clients * requests)]
    began = time.perf_counter()
    every = [Client(address, bodies[i * requests : (i + 1) * requests]) for i in range(clients)]
    with selectors.DefaultSelector() as selector:
        for client in every:
            if client.socket:
                selector.register(client.socket, selectors.EVENT_READ, client)
        while selector.get_map():
            for key, _ in selector.select(60):
                client = key.data
                before = client.socket
                if client.read():
                    selector.unregister(before)
                    before.close()
                    if client.socket:
                        selector.register(client.socket, selectors.EVENT_READ, client)
    seconds = time.perf_counter() - began
    firsts = [wait for client in every for wait in client.result.first_token_seconds]
    total = sum(client.result.tokens for client in every)
    return Load(total / seconds, firsts, sum(client.result.failures for client in every))


def summary(loads: list[Load]) -> dict[str, Any]:
    """Summarize several rounds of the same load."""
    firsts = sorted(wait for each in loads for wait in each.firsts)
    return {
        "tokens_s": round(statistics.median(each.tokens_s for each in loads), 1),
        "rounds": [round(each.tokens_s, 1) for each in loads],
        "first_token_p50_s": round(statistics.median(firsts), 3) if firsts else None,
        "first_token_p99_s": round(firsts[min(len(firsts) - 1, round(0.99 * len(firsts)))], 3) if firsts else None,
        "failures": sum(each.failures for each in loads),
        "completions": len(firsts),
    }


def model_of(size: str, precision: str) -> Any:
    """Return random weights in an engine, with GPT-2's tokenizer."""
    from gpt2lab.benchmarking import random_checkpoint
    from gpt2lab.engines.lazy import Engines
    from gpt2lab.model import LanguageModel
    from gpt2lab.tokenizer import Tokenizer

    return LanguageModel(Engines(random_checkpoint(size), precision=precision), Tokenizer.gpt2())


def run_server(size: str, precision: str, bound: socket.socket) -> None:
    """Run the server in this process."""
    import logging

    from gpt2lab.serving.server import serve
    from gpt2lab.serving.settings import Settings

    logging.disable(logging.INFO)
    serve([(size, model_of(size, precision))], Settings(), bound)


def engine_tokens_s(size: str, precision: str, tokens: int, tell: Callable[[float], None]) -> None:
    """Report to ``tell`` the tokens per second of a batch of 32 on the scheduler, without a server: median of three."""
    model = model_of(size, precision)
    prompts = [prompt_of(number) for number in range(ENGINE_BATCH)]
    model.generate(prompts, length=8, seed=0, ignore_eos=True)
    speeds = []
    for _ in range(3):
        began = time.perf_counter()
        model.generate(prompts, length=tokens, seed=0, top_k=TOP_K, ignore_eos=True)
        speeds.append(ENGINE_BATCH * tokens / (time.perf_counter() - began))
    tell(statistics.median(speeds))


def engine(arguments: argparse.Namespace) -> float:
    """Run :func:`engine_tokens_s` in a separate process."""
    spawn = multiprocessing.get_context("spawn")
    queue: Any = spawn.Queue()
    given = (arguments.size, arguments.precision, arguments.tokens, queue.put)
    process = spawn.Process(target=engine_tokens_s, args=given)
    process.start()
    figure: float = queue.get(timeout=600)
    process.join()
    return figure


@contextmanager
def own_server(arguments: argparse.Namespace, _: int) -> Iterator[str]:
    """Yield our server's address."""
    from gpt2lab.serving.server import listen_on, url_of

    bound = listen_on("127.0.0.1", 0)
    given = (arguments.size, arguments.precision, bound)
    process = multiprocessing.get_context("spawn").Process(target=run_server, args=given)
    process.start()
    try:
        yield wait_for(url_of(bound))
    finally:
        process.terminate()
        process.join(30)


@contextmanager
def llama_server(arguments: argparse.Namespace, slots: int) -> Iterator[str]:
    """Yield the address of llama.cpp's server with the same weights; each slot fits a prompt and its completion."""
    from peer_models import prepare

    from gpt2lab.system.cores import physical_cores

    model = prepare(f"gguf-{arguments.precision}", arguments.size, arguments.models, Path(sys.executable).parent)
    room = -(-(PROMPT_TOKENS + arguments.tokens + 8) // 256) * 256
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [arguments.llama_server, "--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--parallel", str(slots), "--ctx-size", str(slots * room), "--threads", str(physical_cores())]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield wait_for(f"http://127.0.0.1:{port}", "/health")
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def running_server(arguments: argparse.Namespace, _: int) -> Iterator[str]:
    """Yield the address of a server that is already running."""
    yield wait_for(arguments.peer)


def wait_for(url: str, path: str | None = None) -> str:
    """Return ``url`` once something listens there, and answers 200 at ``path`` if one is given."""
    parts = urlsplit(url)
    for _ in range(600):
        try:
            with socket.create_connection((parts.hostname or "", parts.port or 80)) as connection:
                if path is None:
                    return url
                connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
                if b" 200 " in connection.recv(100):
                    return url
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"nothing answers at {url}")


def measure(
    server: Callable[..., Any], arguments: argparse.Namespace, model: str | None, peer: bool
) -> dict[int, Load]:
    """Measure each load on a server that has already served another one of the same size, so that it has its memory.

    No prompt is sent twice, so no server can reuse earlier results.
    """
    loads = {}
    for clients in arguments.clients:
        count = clients * arguments.requests
        with server(arguments, clients) as url:
            cold, warm = (
                load(url, clients, arguments.requests, arguments.tokens, model, peer, first) for first in (0, count)
            )
        loads[clients] = Load(warm.tokens_s, warm.firsts, cold.failures + warm.failures)
    return loads


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="124M")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--clients", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--requests", type=int, default=2, help="completions of each client")
    parser.add_argument("--tokens", type=int, default=96, help="of each completion")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--llama_server", metavar="PROGRAM", help="llama.cpp's server, to be started and measured")
    parser.add_argument("--models", type=Path, default=Path("peers/models"), help="where its GGUF file is, or is made")
    parser.add_argument("--peer", metavar="URL", help="another server with /v1/completions, running already")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    servers: dict[str, Callable[..., Any]] = {"gpt2lab": own_server}
    servers |= {"llama-server": llama_server} if arguments.llama_server else {}
    servers |= {"peer": running_server} if arguments.peer else {}
    engines: list[float] = []
    rounds: dict[str, list[dict[int, Load]]] = {name: [] for name in servers}
    for number in range(arguments.rounds):
        engines.append(engine(arguments))
        for name, server in servers.items():
            own = name == "gpt2lab"
            rounds[name].append(measure(server, arguments, arguments.size if own else None, peer=not own))
        print(f"round {number + 1} of {arguments.rounds} is done", file=sys.stderr, flush=True)
    alone = statistics.median(engines)
    figures = {name: {n: summary([each[n] for each in of]) for n in arguments.clients} for name, of in rounds.items()}
    print(f"engine, batch of {ENGINE_BATCH}: {alone:.0f} tokens/s ({min(engines):.0f} to {max(engines):.0f})")
    for name, of in figures.items():
        show(name, of, alone)
    report = {"model": arguments.size, "precision": arguments.precision, "tokens": arguments.tokens}
    print(json.dumps({**report, "engine_batch_32": [round(each, 1) for each in engines], **figures}))


def show(name: str, figures: dict[int, dict[str, Any]], alone: float) -> None:
    for clients, figure in figures.items():
        first = f"first token p50 {figure['first_token_p50_s']} s, p99 {figure['first_token_p99_s']} s"
        speed = f"{figure['tokens_s']} tokens/s, {figure['tokens_s'] / alone:.2f} of the engine's"
        print(f"{name}, {clients} clients: {speed}, {first}, {figure['failures']} failures")


if __name__ == "__main__":
    main()
