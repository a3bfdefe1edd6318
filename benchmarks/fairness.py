"""The wait of small requests alongside a large one, on ``gpt2lab serve``.

    python benchmarks/fairness.py [--size 124M] [--precision int8] [--n 64] [--tokens 500] [--every 2]

Random weights of the real shape; server and clients are processes of their own on one machine. First one request of
``--n`` samples of ``--tokens`` tokens runs alone, then again while a request for 5 tokens comes every ``--every``
seconds. The target is a 99th percentile of the small ones of at most three times 5 steps of a batch of 32, the step
measured on the scheduler without a server, with the large request at 0.95 of its speed alone or more. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.request
from threading import Event, Thread
from typing import Any

from serving import ENGINE_BATCH, body_of, engine, own_server

SMALL_TOKENS = 5
TARGET = 3


def ask(url: str, number: int, tokens: int, n: int) -> float:
    """Send one request and return the seconds until its whole answer has come."""
    body = {**json.loads(body_of(number, tokens, None, peer=False)), "n": n, "stream": False}
    del body["stream_options"]
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    began = time.perf_counter()
    with urllib.request.urlopen(request) as answer:
        drawn = json.load(answer)["usage"]["completion_tokens"]
    assert drawn == n * tokens, f"{drawn} tokens instead of {n * tokens}"
    return time.perf_counter() - began


def small_waits(url: str, every: float, ended: Event) -> list[float]:
    """Send a small request every ``every`` seconds, whether or not the last one has been answered; return the waits."""
    waits: list[float] = []
    threads = []
    number = 1000
    while not ended.wait(every):
        number += 1
        threads.append(Thread(target=lambda n=number: waits.append(ask(url, n, SMALL_TOKENS, 1))))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return sorted(waits)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the seconds of the large request alone and in company, and the waits of the small ones."""
    with own_server(arguments, 1) as url:
        ask(url, 0, 8, 2)
        alone = ask(url, 1, arguments.tokens, arguments.n)
        ended = Event()
        waits: list[float] = []
        small = Thread(target=lambda: waits.extend(small_waits(url, arguments.every, ended)))
        small.start()
        beside = ask(url, 2, arguments.tokens, arguments.n)
        ended.set()
        small.join()
    return {"alone_s": alone, "beside_s": beside, "small_s": waits}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="124M")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--n", type=int, default=64, help="samples of the large request")
    parser.add_argument("--tokens", type=int, default=500, help="tokens of each of its samples")
    parser.add_argument("--every", type=float, default=2.0, help="seconds from one small request to the next")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    found = measure(arguments)
    step = ENGINE_BATCH / engine(arguments)
    waits = found["small_s"]
    if not waits:
        raise SystemExit("the large request ended before a small one was sent: raise --tokens or lower --every")
    p99 = waits[min(len(waits) - 1, round(0.99 * len(waits)))]
    print(f"a step of {ENGINE_BATCH} rows: {step * 1000:.1f} ms; {SMALL_TOKENS} steps: {SMALL_TOKENS * step:.3f} s")
    print(f"{len(waits)} requests for {SMALL_TOKENS} tokens: median {waits[len(waits) // 2]:.3f} s, p99 {p99:.3f} s")
    print(f"p99 is {p99 / (SMALL_TOKENS * step):.2f} times these steps (target: at most {TARGET})")
    print(f"the large request ran at {found['alone_s'] / found['beside_s']:.3f} of its speed alone (target: 0.95)")
    print(json.dumps({"size": arguments.size, "n": arguments.n, "step_32_s": step, "p99_s": p99, **found}))


if __name__ == "__main__":
    main()
