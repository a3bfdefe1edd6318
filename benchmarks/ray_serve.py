"""Measure requests per second and core of examples/ray_serve.py beside plain ``gpt2lab serve``, on one machine.

    python benchmarks/ray_serve.py [--size 124M] [--clients 16] [--requests 4] [--tokens 32]

Uses random weights of the real shape, in int8. N clients run at once. Each requests completions one after the other,
each with a different prompt: streamed with one token per event, and whole. Servers, Ray and clients share the cores;
requests per second are divided by the number of cores. Plain is one process with all cores. Ray Serve has the same
cores, as one replica and as one replica for each core. Plain runs before and after, because the machine's load
changes. The last line is JSON. Needs ``pip install 'gpt2lab[serve]' 'ray[serve]'``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving import body_of, load, summary, wait_for

from gpt2lab.benchmarking import random_checkpoint
from gpt2lab.system.cores import physical_cores
from gpt2lab.weights import convert

sys.path.insert(0, str(Path(__file__).parents[1]))
PORTS = {"plain": 8971, "ray": 8972}
CORES = physical_cores()


@contextmanager
def plain(model: Path) -> Iterator[str]:
    """Yield the address of ``gpt2lab serve``."""
    command = [
        sys.executable,
        "-m",
        "gpt2lab",
        "serve",
        "--model",
        str(model),
        "--port",
        str(PORTS["plain"]),
        "--quiet",
    ]
    process = subprocess.Popen([*command, "--threads", str(CORES)], stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{PORTS['plain']}"
    try:
        wait_for(url)
        yield url
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def on_ray(model: Path, replicas: int) -> Iterator[str]:
    """Yield the address of the example, whose replicas share the cores."""
    from examples.ray_serve import app
    from ray import serve

    threads = CORES // replicas
    serve.run(app({"model": str(model), "threads": str(threads), "replicas": str(replicas)}))
    try:
        yield f"http://127.0.0.1:{PORTS['ray']}"
    finally:
        serve.delete("default")


@contextmanager
def ray_here() -> Iterator[None]:
    """Run a cluster on this machine with Ray Serve's proxy; without requests it is idle."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray import serve

    quiet = {"logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": False}
    ray.init(address="local", num_cpus=CORES, _node_ip_address="127.0.0.1", object_store_memory=100 << 20, **quiet)
    try:
        serve.start(
            http_options={"host": "127.0.0.1", "port": PORTS["ray"]}, logging_config={"enable_access_log": False}
        )
        yield
        serve.shutdown()
    finally:
        ray.shutdown()


def measure(url: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Warm up, run both loads, and return completions per second and core."""
    clients, requests, tokens = arguments.clients, arguments.requests, arguments.tokens
    load(url, clients, 1, 4, None, peer=False)
    streamed = summary([load(url, clients, requests, tokens, None, peer=False)])
    if streamed["failures"]:
        raise SystemExit(f"{url}: {streamed['failures']} requests failed")
    return {
        "streamed": round(streamed["tokens_s"] / tokens / CORES, 2),
        "whole": round(clients * requests / seconds_of_whole(url, clients, requests, tokens) / CORES, 2),
        "first_token_p50_s": streamed["first_token_p50_s"],
    }


def seconds_of_whole(url: str, clients: int, requests: int, tokens: int) -> float:
    """Return the time for the same completions, each sent in one piece."""

    def ask(number: int) -> None:
        body = {**json.loads(body_of(number, tokens, None, peer=False)), "stream": False}
        del body["stream_options"]
        request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request) as answer:
            answer.read()

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(ask, range(clients * requests)))
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="124M")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=4, help="completions of each client")
    parser.add_argument("--tokens", type=int, default=32, help="of each completion")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "random.gguf"
        convert(random_checkpoint(arguments.size), model, precision="int8")
        with plain(model) as url:
            first = measure(url, arguments)
        with ray_here():
            figures = {}
            for replicas in dict.fromkeys((1, CORES)):
                with on_ray(model, replicas) as url:
                    figures[f"ray_serve_{replicas}"] = measure(url, arguments)
        with plain(model) as url:
            report = {"plain": first, **figures, "plain_again": measure(url, arguments)}
    for name, figure in report.items():
        print(f"{name:12} {figure['streamed']} requests/s per core streamed, {figure['whole']} whole")
    print(json.dumps({"size": arguments.size, "clients": arguments.clients, "tokens": arguments.tokens, **report}))


if __name__ == "__main__":
    main()
