"""Requests in, tokens out: continuous batching over an engine.

Samples join and leave between steps; a step is one call of the engine's forward and one of its sampler. A prompt is
fed once, in chunks so that running samples are not stalled, and forked for every sample that starts from it.
Which samples run together changes speed alone, never what is drawn. Knows nothing of text: whoever reads the events
says with :meth:`Scheduler.remove` that a sample is to end before its limit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from gpt2lab.errors import ContextError, UsageError

if TYPE_CHECKING:
    import numpy.typing as npt

    from gpt2lab.engines import Engine
    from gpt2lab.sampling import SamplingParams

PREFILL_CHUNK = 256
"""Tokens of prompts that one step feeds beside the running samples' one token each."""

MAX_BATCH = 64
"""Samples that run together if nothing smaller is asked for; beyond it products are bound by arithmetic."""

KV_CACHE_BUDGET = 2**30
"""Bytes of keys and values up to which further samples are let in; one sample always runs."""


@dataclass(frozen=True)
class Request:
    """One sample that is wanted."""

    prompt: tuple[int, ...]
    """Ids that come before the first draw; at least one."""
    params: SamplingParams
    seed: int
    stream: int
    """Number of the random stream of ``seed``."""
    limit: int
    """Draw this many tokens at most; at least one."""
    slide: bool = False
    """Whether text may outgrow the context; see :func:`window_start`."""
    implicit: int = 0
    """How many ids at the start of ``prompt`` are not text: penalties do not count them."""


@dataclass(frozen=True)
class Event:
    """One token that was drawn."""

    request: int
    """What :meth:`Scheduler.submit` returned."""
    token: int
    logprob: float
    """Natural log-probability under softmax(logits), before any filter."""
    last: bool
    """Whether the sample ended with it because its limit is reached."""


def window_start(n_tokens: int, n_ctx: int) -> int:
    """Where the context of a text of ``n_tokens`` tokens starts when it slides.

    Whenever the context is full the older half of it is dropped. A function of lengths alone, so what is drawn
    depends on nothing but the text.
    """
    if n_tokens <= n_ctx:
        return 0
    half = max(1, n_ctx // 2)
    return half * -((n_ctx - n_tokens) // half)


@dataclass(eq=False)
class _Lane:
    """An engine sequence, and the tokens that it must be fed before its next logits are known."""

    todo: list[int]
    sequence: int | None = None
    logits: npt.NDArray[np.float32] | None = None


@dataclass(eq=False)
class _Prompt:
    """A prompt with the number of submitted samples that have not started from it yet."""

    lane: _Lane
    users: int = 0


@dataclass(eq=False)
class _Sample:
    id: int
    request: Request
    prompt: tuple[int, ...]
    """The part of the request's prompt that the context holds: the key of its :class:`_Prompt`."""
    reserve: int
    """Tokens of KV cache that it may come to need."""
    lane: _Lane | None = None
    drawn: list[int] = field(default_factory=list)

    @property
    def n_tokens(self) -> int:
        return len(self.request.prompt) + len(self.drawn)

    def history(self) -> Sequence[int]:
        """The text so far if a penalty asks for it."""
        params = self.request.params
        if params.repetition_penalty == 1 and not params.presence_penalty and not params.frequency_penalty:
            return ()
        return [*self.request.prompt[self.request.implicit :], *self.drawn]


class Scheduler:
    """Runs requests on ``engine``, at most ``batch_size`` (default: as many as pay and fit) at a time.

    A context manager: on leaving it every sequence it made is freed. Raises
    :class:`~gpt2lab.errors.UsageError` for a ``batch_size`` below 1.
    """

    def __init__(self, engine: Engine, *, batch_size: int | None = None) -> None:
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {batch_size}")
        self._engine = engine
        self._n_ctx = engine.config.n_ctx
        self._max_samples = batch_size or MAX_BATCH
        self._max_tokens = KV_CACHE_BUDGET // engine.config.kv_cache_bytes(1)
        self._ids = count()
        self._waiting: deque[_Sample] = deque()
        self._running: dict[int, _Sample] = {}
        self._prompts: dict[tuple[int, ...], _Prompt] = {}
        self._sequences: set[int] = set()

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def n_waiting(self) -> int:
        """Samples submitted and not yet let in."""
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether any sample is waiting or running."""
        return bool(self._waiting or self._running)

    def submit(self, request: Request) -> int:
        """Queue ``request``; its events carry the number returned.

        Raises :class:`~gpt2lab.errors.ContextError` if it cannot fit the context and may not slide.
        """
        n_prompt = len(request.prompt)
        if n_prompt < 1 or request.limit < 1:
            raise UsageError(f"a request needs tokens to start from and a limit of 1 or more, got {request}")
        n_fed = n_prompt + request.limit - 1  # the last token drawn is never fed
        if n_fed > self._n_ctx and not request.slide:
            raise ContextError(f"{n_fed} tokens are more than the {self._n_ctx} of the model's context")
        prompt = request.prompt[window_start(n_prompt, self._n_ctx) :]
        sample = _Sample(next(self._ids), request, prompt, reserve=min(n_fed, self._n_ctx))
        self._prompts.setdefault(prompt, _Prompt(_Lane(list(prompt)))).users += 1
        self._waiting.append(sample)
        return sample.id

    def remove(self, request: int) -> None:
        """End a sample, waiting or running, and free what it holds; nothing happens if it has ended."""
        sample = self._running.pop(request, None)
        if sample is None:
            sample = next((waiting for waiting in self._waiting if waiting.id == request), None)
            if sample is None:
                return
            self._waiting.remove(sample)
        if sample.lane is not None:
            self._free(sample.lane)
        elif not (prompt := self._count_out(sample)).users:
            self._free(prompt.lane)

    def step(self) -> list[Event]:
        """Let samples in, feed every one that waits for logits, and draw a token for every one that has them.

        Returns the tokens drawn, none if all that ran was a part of a long prompt. A sample whose event is
        ``last`` has been removed.
        """
        self._admit()
        fed, logits = self._feed()
        ready = self._ready()
        if not ready:
            return []
        lanes = [sample.lane for sample in ready]
        # While samples only decode, the rows fed are the rows drawn from, and nothing need be copied.
        rows = logits if lanes == fed else np.stack([lane.logits for lane in lanes if lane and lane.logits is not None])
        return self._draw(ready, rows)

    def close(self) -> None:
        """Drop every request and free every sequence."""
        self._waiting.clear()
        self._running.clear()
        self._prompts.clear()
        while self._sequences:
            self._engine.free_sequence(self._sequences.pop())

    def _admit(self) -> None:
        reserved = sum(sample.reserve for sample in self._running.values()) if self._waiting else 0
        while self._waiting and len(self._running) < self._max_samples:
            reserved += self._waiting[0].reserve
            if self._running and reserved > self._max_tokens:
                break
            sample = self._waiting.popleft()
            self._running[sample.id] = sample

    def _feed(self) -> tuple[list[_Lane], npt.NDArray[np.float32]]:
        """One forward pass over all that is to be fed now; the lanes fed and their logits, row by row."""
        work = self._work()
        if not work:
            return [], np.empty((0, self._engine.config.n_vocab), np.float32)
        for lane, _ in work:
            if lane.sequence is None:
                lane.sequence = self._own(self._engine.new_sequence())
        complete = any(len(tokens) == len(lane.todo) for lane, tokens in work)
        sequences = [lane.sequence for lane, _ in work if lane.sequence is not None]
        logits = self._engine.forward(sequences, [tokens for _, tokens in work], "last" if complete else "none")
        for row, (lane, tokens) in enumerate(work):
            del lane.todo[: len(tokens)]
            if not lane.todo:
                lane.logits = logits[row]
        return [lane for lane, _ in work], logits

    def _work(self) -> list[tuple[_Lane, list[int]]]:
        """Which lanes to feed and what: every single token, and chunks of prompts while they are within bounds.

        A prompt is cut at multiples of :data:`PREFILL_CHUNK` whatever runs beside it.
        """
        work: list[tuple[_Lane, list[int]]] = []
        room = PREFILL_CHUNK
        for lane in self._lanes():
            tokens = lane.todo[:PREFILL_CHUNK]
            if len(tokens) > 1:
                if len(tokens) > room:
                    continue
                room -= len(tokens)
            if tokens:
                work.append((lane, tokens))
        return work

    def _lanes(self) -> list[_Lane]:
        """The lanes of running samples, or of the prompts they wait for, each once, in order of arrival."""
        lanes = (sample.lane or self._prompts[sample.prompt].lane for sample in self._running.values())
        return list({id(lane): lane for lane in lanes}.values())

    def _ready(self) -> list[_Sample]:
        """The running samples that can draw now; those whose prompt has just been read start from it."""
        for sample in self._running.values():
            if sample.lane is None and self._prompts[sample.prompt].lane.logits is not None:
                sample.lane = self._start(sample)
        return [sample for sample in self._running.values() if sample.lane and sample.lane.logits is not None]

    def _start(self, sample: _Sample) -> _Lane:
        """A lane that goes on from the sample's prompt: a fork, or for the last one to start the prompt's own."""
        prompt = self._count_out(sample)
        if not prompt.users or prompt.lane.sequence is None or prompt.lane.logits is None:
            return prompt.lane
        if prompt.lane.logits.base is not None:
            prompt.lane.logits = prompt.lane.logits.copy()  # may be kept for long: let go of the whole batch's
        return _Lane([], self._own(self._engine.fork_sequence(prompt.lane.sequence)), prompt.lane.logits)

    def _count_out(self, sample: _Sample) -> _Prompt:
        """The prompt of ``sample``, which no longer waits for it."""
        prompt = self._prompts[sample.prompt]
        prompt.users -= 1
        if not prompt.users:
            del self._prompts[sample.prompt]
        return prompt

    def _draw(self, samples: list[_Sample], logits: npt.NDArray[np.float32]) -> list[Event]:
        requests = [sample.request for sample in samples]
        ids, logprobs = self._engine.sample(
            logits,
            [request.params for request in requests],
            [request.seed for request in requests],
            [request.stream for request in requests],
            [sample.n_tokens for sample in samples],
            [sample.history() for sample in samples],
        )
        return [self._advance(*drawn) for drawn in zip(samples, ids.tolist(), logprobs.tolist(), strict=True)]

    def _advance(self, sample: _Sample, token: int, logprob: float) -> Event:
        """Put ``token`` behind ``sample`` and prepare its next step, or end it at its limit."""
        start = window_start(sample.n_tokens, self._n_ctx)
        sample.drawn.append(token)
        last = len(sample.drawn) == sample.request.limit
        if last:
            self.remove(sample.id)
        elif sample.lane is not None:
            new_start = window_start(sample.n_tokens, self._n_ctx)
            if new_start == start:
                sample.lane.todo.append(token)
                sample.lane.logits = None
            else:
                self._free(sample.lane)
                sample.lane = _Lane([*sample.request.prompt, *sample.drawn][new_start:])
        return Event(sample.id, token, logprob, last)

    def _own(self, sequence: int) -> int:
        self._sequences.add(sequence)
        return sequence

    def _free(self, lane: _Lane) -> None:
        if lane.sequence is not None:
            self._sequences.discard(lane.sequence)
            self._engine.free_sequence(lane.sequence)
            lane.sequence = None
