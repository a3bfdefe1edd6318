"""Answers to requests for completions: what an order's samples drew, as one JSON object or as a stream of events.

The event loop encodes only little at once. What is large, such as the log-probabilities of many tokens, is encoded in a
thread, so that other streams go on.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool

from gpt2lab.serving.errors import failed
from gpt2lab.serving.logprobs import logprobs_of
from gpt2lab.serving.long_json import dumps

if TYPE_CHECKING:
    from gpt2lab.serving.completions import Order
    from gpt2lab.serving.protocol import StreamOptions
    from gpt2lab.serving.samples import Delta, Entry

log = logging.getLogger("gpt2lab.serving")

AT_ONCE = 1 << 12
"""The most numbers and texts of an answer that the event loop encodes itself: a few milliseconds."""

_CHARACTERS = 64  # this many characters take as long as one number


async def collect(order: Order) -> bytes:
    """Return the answer once all samples have ended. Raises :class:`ApiError` if the model failed."""
    ends: dict[int, Delta] = {}
    try:
        while deltas := await order.job.take():
            ends |= {delta.sample: delta for delta in deltas}
    except Exception as error:
        raise failed(error) from error
    order.completion_tokens = sum(delta.n_tokens for delta in ends.values())
    if sum(_size(order, delta, begins=True) for delta in ends.values()) <= AT_ONCE:
        return _answer(order, ends)
    return await run_in_threadpool(_answer, order, ends)


def _answer(order: Order, ends: Mapping[int, Delta]) -> bytes:
    choices = [_choice(order, index, ends[number], begins=True) for index, number in enumerate(_best(order, ends))]
    head, costs = json.dumps(order.head())[:-1], json.dumps(order.costs())[1:]
    return f'{head}, "choices": [{", ".join(choices)}], {costs}'.encode()


def _best(order: Order, ends: Mapping[int, Delta]) -> Iterable[int]:
    """Return the numbers of the chosen samples: for each prompt the n likeliest per token, likeliest first."""
    if order.best_of == order.n:
        return range(len(ends))
    chosen: list[int] = []
    for start in range(0, len(ends), order.best_of):
        group = range(start, start + order.best_of)
        chosen += sorted(group, key=lambda number: -ends[number].mean_logprob)[: order.n]
    return chosen


def _size(order: Order, delta: Delta, begins: bool) -> int:
    """Return about how many numbers and texts the JSON of ``delta`` holds."""
    n_entries, n_characters, n_ids = len(delta.entries), len(delta.text), len(delta.ids)
    if begins:
        prompt = delta.sample // order.best_of
        n_entries += len(order.job.found[prompt]) if order.job.found else 0
        n_characters += len(order.echoes[prompt])
        n_ids += len(order.prompt_ids[prompt]) if order.prompt_ids is not None else 0
    return n_entries * (4 + (order.logprobs or 0)) + n_characters // _CHARACTERS + n_ids


def _choice(order: Order, index: int, delta: Delta, begins: bool) -> str:
    """Return the JSON of a choice, or of its next part; the one that begins it repeats the prompt if that is wanted."""
    text, entries, prompt = delta.text, delta.entries, None
    if begins:
        prompt = delta.sample // order.best_of
        text = order.echoes[prompt] + text
        if order.job.found:
            entries = (*order.job.found[prompt], *entries)
    logprobs = "null" if order.logprobs is None else _logprobs(order, entries)
    finish = f'"{delta.finish}"' if delta.finish else "null"
    ids = order.token_ids(prompt, delta.ids)
    more = f", {dumps(ids)[1:-1]}" if ids else ""
    return f'{{"text": {json.dumps(text)}, "index": {index}, "logprobs": {logprobs}, "finish_reason": {finish}{more}}}'


def _logprobs(order: Order, entries: tuple[Entry, ...]) -> str:
    found = logprobs_of(entries, order.spell)
    return json.dumps(found, allow_nan=False) if len(entries) == 1 else dumps(found)


async def stream(order: Order, options: StreamOptions) -> AsyncIterator[bytes]:
    """Yield server-sent events: a chunk for each piece of text, then ``[DONE]``."""
    chunks = _Chunks(order, options)
    try:
        while deltas := await order.job.take():
            if order.first_token_seconds is None:
                order.first_token_seconds = time.perf_counter() - order.began
                order.served.metrics.first_token.observe(order.first_token_seconds)
            if chunks.size(deltas) <= AT_ONCE:
                yield chunks.of(deltas)
            else:
                yield await run_in_threadpool(chunks.of, deltas)
    except Exception as error:
        if error is not order.job.error:  # which the model's thread has logged
            log.exception("a stream's events cannot be encoded")
        yield b"data: " + json.dumps(failed(error).body()).encode() + b"\n\n"
        return
    yield chunks.end()


class _Chunks:
    """An encoder of deltas as events; the part that all events share is encoded once."""

    def __init__(self, order: Order, options: StreamOptions) -> None:
        self._order = order
        self._options = options
        self._head = "data: " + json.dumps(order.head())[:-1] + ', "choices": ['
        self._drawn: dict[int, int] = {}  # by sample; none for those that have not begun

    def size(self, deltas: Iterable[Delta]) -> int:
        """Return about how many numbers and texts the events of ``deltas`` hold."""
        return sum(_size(self._order, delta, delta.sample not in self._drawn) for delta in deltas)

    def of(self, deltas: Iterable[Delta]) -> bytes:
        """Return an event for each of ``deltas``."""
        return "".join(map(self._event, deltas)).encode()

    def _event(self, delta: Delta) -> str:
        order, number = self._order, delta.sample
        choice = _choice(order, number, delta, begins=number not in self._drawn)
        order.completion_tokens += delta.n_tokens - self._drawn.get(number, 0)
        self._drawn[number] = delta.n_tokens
        return f"{self._head}{choice}{self._tail()}"

    def _tail(self) -> str:
        if not self._options.include_usage:
            return "]}\n\n"
        usage = self._order.usage() if self._options.continuous_usage_stats else None
        return f'], "usage": {json.dumps(usage)}}}\n\n'

    def end(self) -> bytes:
        """Return the counts and times, if requested, and the mark that ends the stream."""
        usage = b""
        if self._options.include_usage:
            last = {**self._order.head(), "choices": [], **self._order.costs()}
            usage = b"data: " + json.dumps(last).encode() + b"\n\n"
        return usage + b"data: [DONE]\n\n"
