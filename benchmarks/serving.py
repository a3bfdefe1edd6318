"""Streaming clients against ``gpt2lab serve``, beside the engine's own figure and, if one is named, another server.

    python benchmarks/serving.py [--size 124M] [--precision q8_0] [--clients 16 64] [--requests 2] [--tokens 128]
    python benchmarks/serving.py --peer http://127.0.0.1:8081 [--peer_only]

Random weights of the real shape. N clients stream at once, each a few completions of ``--tokens`` tokens one after the
other, each with another prompt; server and clients are processes of their own on the same machine. Tokens per second
are all tokens that arrived over the time from the first request to the last byte, the time to the first token is from
a request to the first event with text. "engine" is a batch of 32 on the scheduler, without a server. A peer is any
server with ``/v1/completions`` and gets the same load. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import selectors
import socket
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

PROMPT_TOKENS = 16
ENGINE_BATCH = 32
TOP_K = 40  # llama.cpp sorts the whole vocabulary for every token without it, which would be a comparison of that


@dataclass
class Result:
    """What one client saw."""

    first_token_seconds: list[float] = field(default_factory=list)
    tokens: int = 0
    failures: int = 0


def prompt_of(number: int) -> list[int]:
    """Ids that no other request begins with."""
    ids = random.Random(number)
    return [ids.randrange(50000) for _ in range(PROMPT_TOKENS)]


class Client:
    """Completions one after the other, each streamed on a connection of its own; driven by :func:`load`.

    Events are counted and not parsed: what a client computes is taken from the server, which has the same cores.
    """

    def __init__(self, address: tuple[str, int], bodies: list[bytes]) -> None:
        self.result = Result()
        self._address = address
        self._bodies = bodies[::-1]
        self.socket = self._next()

    def _next(self) -> socket.socket | None:
        """A connection on which the next request was sent, None if there is none left."""
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
        """Take what has come; whether this connection is at its end, and :attr:`socket` another one or None."""
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
        events = part.count(b"data: {")  # a mark that two parts share is missed; the server's own count is what counts
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
    """One request; a peer's has what it needs to do the same."""
    body: dict[str, Any] = {"prompt": prompt_of(number), "max_tokens": tokens, "seed": number, "stream": True}
    body |= {"stream_options": {"include_usage": True}, "temperature": 1.0, "ignore_eos": True}
    body |= {"top_k": TOP_K, "top_p": 1.0, "min_p": 0.0}
    body |= {"model": model} if model else {}
    body |= {"cache_prompt": False} if peer else {}
    return json.dumps(body).encode()


def load(url: str, clients: int, requests: int, tokens: int, model: str | None, peer: bool) -> dict[str, Any]:
    """All clients at once."""
    parts = urlsplit(url)
    address = parts.hostname or "", parts.port or 80
    bodies = [body_of(number, tokens, model, peer) for number in range(clients * requests)]
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
    firsts = sorted(wait for client in every for wait in client.result.first_token_seconds)
    total = sum(client.result.tokens for client in every)
    return {
        "tokens_s": round(total / seconds, 1),
        "first_token_p50_s": round(statistics.median(firsts), 3) if firsts else None,
        "first_token_p99_s": round(firsts[min(len(firsts) - 1, round(0.99 * len(firsts)))], 3) if firsts else None,
        "failures": sum(client.result.failures for client in every),
        "completions": len(firsts),
        "tokens": total,
    }


def model_of(size: str, precision: str) -> Any:
    """Random weights in an engine, with GPT-2's tokenizer."""
    from gpt2lab.benchmarking import random_checkpoint
    from gpt2lab.engines.lazy import Engines
    from gpt2lab.model import LanguageModel
    from gpt2lab.tokenizer import Tokenizer

    return LanguageModel(Engines(random_checkpoint(size), precision=precision), Tokenizer.gpt2())


def run_server(size: str, precision: str, bound: socket.socket) -> None:
    """The server's process."""
    import logging

    from gpt2lab.serving.server import serve
    from gpt2lab.serving.settings import Settings

    logging.disable(logging.INFO)
    serve([(size, model_of(size, precision))], Settings(), bound)


def engine_tokens_s(size: str, precision: str, tokens: int, rounds: int, tell: Callable[[float], None]) -> None:
    """Tokens per second of a batch of 32 that the scheduler runs without a server: medians of ``rounds``."""
    model = model_of(size, precision)
    prompts = [prompt_of(number) for number in range(ENGINE_BATCH)]
    model.generate(prompts, length=8, seed=0, ignore_eos=True)
    speeds = []
    for _ in range(rounds):
        began = time.perf_counter()
        model.generate(prompts, length=tokens, seed=0, top_k=TOP_K, ignore_eos=True)
        speeds.append(ENGINE_BATCH * tokens / (time.perf_counter() - began))
    tell(statistics.median(speeds))


def wait_for(url: str) -> None:
    """Return once something listens there."""
    parts = urlsplit(url)
    for _ in range(600):
        try:
            socket.create_connection((parts.hostname or "", parts.port or 80)).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing answers at {url}")


def own_figures(arguments: argparse.Namespace) -> dict[str, Any]:
    """The engine before and after, and the server in between: the machine's mood changes."""
    from gpt2lab.serving.server import listen_on, url_of

    spawn = multiprocessing.get_context("spawn")
    queue: Any = spawn.Queue()
    how = (arguments.size, arguments.precision)

    def engine() -> float:
        process = spawn.Process(target=engine_tokens_s, args=(*how, arguments.tokens, 3, queue.put))
        process.start()
        figure: float = queue.get(timeout=600)
        process.join()
        return figure

    before = engine()
    bound = listen_on("127.0.0.1", 0)
    server = spawn.Process(target=run_server, args=(*how, bound))
    server.start()
    try:
        wait_for(url_of(bound))
        figures = {n: run_load(url_of(bound), n, arguments, arguments.size, peer=False) for n in arguments.clients}
    finally:
        server.terminate()
        server.join(30)
    engines = [before, engine()]
    return {"engine_batch_32": [round(figure, 1) for figure in engines], "gpt2lab": figures}


def run_load(url: str, clients: int, arguments: argparse.Namespace, model: str | None, peer: bool) -> dict[str, Any]:
    """A little to warm up, then the load."""
    load(url, clients, 1, 8, model, peer)
    return load(url, clients, arguments.requests, arguments.tokens, model, peer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="124M")
    parser.add_argument("--precision", default="q8_0")
    parser.add_argument("--clients", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--requests", type=int, default=2, help="completions of each client")
    parser.add_argument("--tokens", type=int, default=128, help="of each completion")
    parser.add_argument("--peer", metavar="URL", help="another server with /v1/completions, running already")
    parser.add_argument("--peer_only", action="store_true")
    arguments = parser.parse_args()
    report: dict[str, Any] = {"model": arguments.size, "precision": arguments.precision, "tokens": arguments.tokens}
    if not arguments.peer_only:
        report |= own_figures(arguments)
        print(f"engine, batch of {ENGINE_BATCH}: {report['engine_batch_32']} tokens/s, before and after")
        show("gpt2lab", report["gpt2lab"])
    if arguments.peer:
        figures = {n: run_load(arguments.peer, n, arguments, None, peer=True) for n in arguments.clients}
        report["peer"] = figures
        show("peer", figures)
    if "engine_batch_32" in report:
        engine = statistics.mean(report["engine_batch_32"])
        report["of_engine"] = {n: round(f["tokens_s"] / engine, 3) for n, f in report["gpt2lab"].items()}
    print(json.dumps(report))


def show(name: str, figures: dict[int, dict[str, Any]]) -> None:
    for clients, figure in figures.items():
        first = f"first token p50 {figure['first_token_p50_s']} s, p99 {figure['first_token_p99_s']} s"
        print(f"{name}, {clients} clients: {figure['tokens_s']} tokens/s, {first}, {figure['failures']} failures")


if __name__ == "__main__":
    main()
