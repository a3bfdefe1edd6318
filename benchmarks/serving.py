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
import asyncio
import json
import multiprocessing
import random
import socket
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

PROMPT_TOKENS = 16
ENGINE_BATCH = 32


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


async def request(host: str, port: int, body: dict[str, Any], result: Result) -> None:
    """Stream one completion, and count its events as tokens: every server here sends one for each."""
    reader, writer = await asyncio.open_connection(host, port)
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    began = time.perf_counter()
    writer.write(head.encode() + f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
    first, rest, received = None, b"", 0
    usage = b""
    while part := await reader.read(1 << 16):
        whole = rest + part
        count = whole.count(b"data: {")
        if count and first is None:
            first = time.perf_counter() - began
        received += count
        cut = whole.rfind(b"data: {") + 7 if count else max(0, len(whole) - 6)
        rest, usage = whole[cut:][-4096:], whole[-2000:]
    writer.close()
    if first is None or b"[DONE]" not in usage:
        result.failures += 1
        return
    said = usage.rpartition(b'"completion_tokens":')[2].split(b",")[0].split(b"}")[0]
    result.tokens += int(said) if said.strip().isdigit() else received
    result.first_token_seconds.append(first)


async def client(url: str, numbers: range, tokens: int, model: str | None, peer: bool) -> Result:
    """A few completions, one after the other."""
    parts, result = urlsplit(url), Result()
    for number in numbers:
        body: dict[str, Any] = {"prompt": prompt_of(number), "max_tokens": tokens, "seed": number, "stream": True}
        body |= {"stream_options": {"include_usage": True}, "temperature": 1.0, "ignore_eos": True}
        body |= {"model": model} if model else {}
        body |= {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "cache_prompt": False} if peer else {}
        try:
            await request(parts.hostname or "", parts.port or 80, body, result)
        except OSError:
            result.failures += 1
    return result


async def load(url: str, clients: int, requests: int, tokens: int, model: str | None, peer: bool) -> dict[str, Any]:
    """All clients at once."""
    began = time.perf_counter()
    waits = [client(url, range(i * requests, (i + 1) * requests), tokens, model, peer) for i in range(clients)]
    results = await asyncio.gather(*waits)
    seconds = time.perf_counter() - began
    firsts = sorted(wait for result in results for wait in result.first_token_seconds)
    total = sum(result.tokens for result in results)
    return {
        "tokens_s": round(total / seconds, 1),
        "first_token_p50_s": round(statistics.median(firsts), 3) if firsts else None,
        "first_token_p99_s": round(firsts[min(len(firsts) - 1, round(0.99 * len(firsts)))], 3) if firsts else None,
        "failures": sum(result.failures for result in results),
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
        model.generate(prompts, length=tokens, seed=0, ignore_eos=True)
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
    asyncio.run(load(url, clients, 1, 8, model, peer))
    return asyncio.run(load(url, clients, arguments.requests, arguments.tokens, model, peer))


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
