"""Requests in, tokens out: continuous batching over an engine.

Samples join, pause and leave between steps; a step is one call of the engine, which feeds and draws. A prompt is fed
in chunks, so that running samples are not stalled, and only once for all samples that share it. Batching, pausing and
guessing ahead change only the speed, never the tokens drawn. :mod:`~gpt2lab.generation.shares` says whose turn it is.
The scheduler knows nothing of text: the reader of the events calls :meth:`Scheduler.remove` to end a sample early.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterator
from itertools import count
from math import nan
from time import perf_counter
from typing import TYPE_CHECKING

from gpt2lab.engines.protocol import Draw
from gpt2lab.errors import ContextError, UsageError
from gpt2lab.generation.admission import Admission
from gpt2lab.generation.requests import Event, Lane, PromptLane, Request, SampleLane
from gpt2lab.generation.sequences import LaneSequences, Sequences
from gpt2lab.generation.shares import Shares
from gpt2lab.generation.speculation import Wish
from gpt2lab.generation.step_times import MAX_ROWS
from gpt2lab.generation.window import window_start
from gpt2lab.system.memory import available_memory

if TYPE_CHECKING:
    from gpt2lab.engines.hooks import Edit
    from gpt2lab.engines.protocol import Drawn, Engine
    from gpt2lab.errors import StageError
    from gpt2lab.generation.speculation import Speculation

PREFILL_CHUNK = 256
"""The most prompt tokens that a step feeds in addition to one token for each running sample.

Twice as many if none is drawing.
"""

MAX_BATCH = 64
"""The most samples that run together by default.

Beyond that, matrix products are limited by arithmetic, so more samples gain little.
"""

KV_CACHE_SHARE = 4
"""Samples may reserve 1/KV_CACHE_SHARE of the available memory for keys and values.

Beyond that, no sample is admitted unless none has a reservation.
"""


class Scheduler:
    """A continuous-batching scheduler on ``engine`` that runs at most ``batch_size`` samples at a time.

    The default is :data:`MAX_BATCH`; fewer run if memory is short. ``speculation`` guesses tokens ahead (default:
    nothing is guessed). ``sequences`` decide what is kept of prompts and need not be fed again (default: nothing). As a
    context manager, it frees every sequence it made on exit. Raises :class:`~gpt2lab.errors.UsageError` for a
    ``batch_size`` below 1.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        batch_size: int | None = None,
        speculation: Speculation | None = None,
        sequences: Sequences | None = None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {batch_size}")
        self._engine = engine
        self._speculation = speculation
        self._all_sequences = sequences or Sequences(engine)
        self._n_ctx = engine.config.n_ctx
        self._sequences = LaneSequences(self._all_sequences)
        memory = available_memory() if engine.device_memory is None else engine.device_memory
        max_tokens = memory // KV_CACHE_SHARE // engine.kv_cache_bytes_per_token
        self._shares = Shares()
        self._admission = Admission(
            self._shares, batch_size or MAX_BATCH, max_tokens, self._n_ctx, self._sequences.free
        )
        self._ids = count()
        self._steps = count(1)
        self._samples: dict[int, SampleLane] = {}
        self._prompts: dict[tuple[Hashable, tuple[Edit, ...], tuple[int, ...]], PromptLane] = {}
        self.let_in: list[int] = []
        """Numbers of the samples that the last :meth:`step` admitted."""
        self.known: dict[int, int] = {}
        """For each sample whose first token the last step drew: the number of its prompt's tokens that were kept."""

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def n_waiting(self) -> int:
        """The number of submitted samples that do not run."""
        return self._shares.n_waiting

    @property
    def busy(self) -> bool:
        """Whether any sample is waiting or running."""
        return bool(self._samples)

    def submit(self, request: Request, owner: Hashable = None, client: Hashable = None) -> int:
        """Queue ``request``; its events carry the number returned.

        One sample of each ``owner`` runs before a second of any: samples of an owner with more are paused meanwhile.
        Only samples of the same ``client`` with the same edits share prompts.
        Raises :class:`~gpt2lab.errors.UsageError` for an empty prompt or a limit below 1, and
        :class:`~gpt2lab.errors.ContextError` if the request does not fit the context and may not slide.
        """
        n_prompt = len(request.prompt)
        if n_prompt < 1 or request.limit < 1:
            raise UsageError(f"a request needs tokens to start from and a limit of 1 or more, got {request}")
        n_fed = n_prompt + request.limit - 1  # the last token drawn is never fed
        if n_fed > self._n_ctx and not request.slide:
            raise ContextError(f"{n_fed} tokens are more than the {self._n_ctx} of the model's context")
        start = window_start(n_prompt, self._n_ctx)
        edits = request.edits
        key = (client, edits, request.prompt[start:])
        prompt = self._prompts.setdefault(key, PromptLane(list(key[2][:-1]), key=key, client=client, edits=edits))
        prompt.unstarted += 1
        counts = request.params.penalises or request.stages
        sample = SampleLane(
            text=list(request.prompt),
            start=start,
            client=client,
            edits=edits,
            id=next(self._ids),
            request=request,
            end=n_prompt + request.limit,
            reserve=request.limit if n_fed <= self._n_ctx else self._n_ctx,
            history=array("i", request.prompt[request.implicit :]) if counts else None,
            prompt=prompt,
            share=self._shares.of(owner),
        )
        self._samples[sample.id] = sample
        self._shares.wait(sample)
        return sample.id

    def remove(self, request: int) -> None:
        """End a sample, waiting or running, and free what it holds; do nothing if it has ended."""
        sample = self._samples.pop(request, None)
        if sample is None:
            return
        self._admission.remove(sample)
        if self._speculation and sample.guesser:
            self._speculation.stop(sample.guesser)
        self._sequences.keep(sample)
        if not sample.started:
            self._count_out(sample)
            if not sample.prompt.unstarted:
                self._sequences.keep(sample.prompt)

    def step(self) -> list[Event]:
        """Admit samples, feed them, and draw for each sample whose text has all been fed.

        Returns the tokens drawn, those of one sample in order; none if the step only fed part of a long prompt. A
        sample whose event is ``last`` has been removed.
        """
        self._admit()
        self.known = {}
        lanes, tokens, draws = self._work()
        if not lanes:
            return []
        if self._speculation:
            self._guess(lanes, tokens, draws, self._speculation)
        began = perf_counter()
        drawn, errors = self._run(lanes, tokens, draws)
        seconds = perf_counter() - began
        events: list[Event] = []
        for place, (lane, fed, draw, row) in enumerate(zip(lanes, tokens, draws, drawn, strict=True)):
            lane.fed += len(fed)
            if draw is not None and isinstance(lane, SampleLane):
                self._advance(lane, draw, row, errors.get(place), events)
        if self._speculation:
            rows = sum(map(len, tokens))
            if rows == sum(draw.count for draw in draws if draw):  # no prompts
                self._speculation.observe(rows, seconds)
        return events

    def close(self) -> None:
        """Drop every request and free every sequence."""
        self._samples.clear()
        self._admission.clear()
        self._prompts.clear()
        self._sequences.close()
        if self._speculation:
            self._speculation.close()

    def _admit(self) -> None:
        admitted = self._admission.admit()
        self.let_in = [sample.id for sample in admitted]
        for sample in admitted:
            if self._speculation and sample.guesser is None:
                sample.guesser = self._speculation.start(sample.text)

    # ---- starting ---------------------------------------------------------------------------------------------------

    def _start(self, sample: SampleLane) -> bool:
        """Start a sample unless it must wait for its prompt; return whether it started.

        It starts when the shared part of its prompt has been fed, or when no other sample needs that part.
        """
        prompt = sample.prompt
        if prompt.unstarted > 1 and prompt.fed < len(prompt.text):
            return False
        self._sequences.hand_on(prompt, sample)
        sample.started = True
        self._count_out(sample)
        return True

    def _count_out(self, sample: SampleLane) -> None:
        """Note that a sample no longer waits for its prompt."""
        sample.prompt.unstarted -= 1
        if not sample.prompt.unstarted:
            del self._prompts[sample.prompt.key]

    # ---- feeding ----------------------------------------------------------------------------------------------------

    def _work(self) -> tuple[list[Lane], list[list[int]], list[Draw | None]]:
        """Return the lanes to feed, the tokens of each, and the draw after each.

        Every sample with one token to feed is included. Prompts are fed in chunks of :data:`PREFILL_CHUNK` tokens in
        all, or of twice that if no sample waits for its next token; the owner whose prompts have waited longest is
        first.
        """
        running = self._admission.running.values()
        decoding = any(sample.started and sample.fed == len(sample.text) - 1 for sample in running)
        work: list[tuple[Lane, list[int]]] = []
        behind: list[SampleLane] = []
        for sample in running:
            if (sample.started or self._start(sample)) and sample.fed == len(sample.text) - 1:
                work.append((sample, sample.text[sample.fed :]))
            else:
                behind.append(sample)
        if behind:
            work += self._chunks(behind, PREFILL_CHUNK if decoding else 2 * PREFILL_CHUNK)
        lanes = [lane for lane, _ in work]
        tokens = [ids for _, ids in work]
        return lanes, tokens, [lane.draw_after(len(ids)) for lane, ids in work]

    def _chunks(self, behind: list[SampleLane], room: int) -> Iterator[tuple[Lane, list[int]]]:
        """Yield lanes of samples that have more than one token to feed, and up to ``room`` tokens of theirs in all."""
        step = next(self._steps)
        seen: set[PromptLane] = set()
        for sample in sorted(behind, key=lambda sample: sample.share.fed):
            if not room or (not sample.started and sample.prompt in seen):
                continue
            lane = self._opened(sample)
            if isinstance(lane, PromptLane):
                seen.add(lane)
            ids = lane.text[lane.fed : lane.fed + room]
            room -= len(ids)
            sample.share.fed = step
            yield lane, ids

    def _opened(self, sample: SampleLane) -> Lane:
        """Return the lane to feed for a sample (its own or its prompt's), whose sequence holds what is kept."""
        if not sample.started:
            self._sequences.open(sample.prompt)
            if not self._start(sample):
                return sample.prompt
        self._sequences.open(sample)
        return sample

    def _run(
        self, lanes: list[Lane], tokens: list[list[int]], draws: list[Draw | None]
    ) -> tuple[list[list[Drawn]], dict[int, StageError]]:
        """Run a step of the engine; return the tokens drawn, and the errors of custom stages by place."""
        sequences = [self._sequences.open(lane) for lane in lanes]
        if not any(draw and draw.stages for draw in draws):  # the usual case
            return self._all_sequences.relieved(lambda: self._engine.step(sequences, tokens, draws)), {}
        from gpt2lab.generation import custom_draws  # imported only for custom stages, because it takes time

        return custom_draws.step(self._engine, sequences, tokens, draws)

    def _guess(
        self, lanes: list[Lane], tokens: list[list[int]], draws: list[Draw | None], speculation: Speculation
    ) -> None:
        """Add guesses to the tokens of samples that draw."""
        rows = sum(map(len, tokens))
        if rows + len(lanes) > MAX_ROWS:
            return
        places: list[int] = []
        wishes: list[Wish] = []
        for place, (lane, draw) in enumerate(zip(lanes, draws, strict=True)):
            if draw is not None and isinstance(lane, SampleLane) and lane.guesser is not None:
                places.append(place)
                wishes.append(Wish(lane.guesser, draw, self._room(lane)))
        guesses = speculation.guess(wishes, rows)
        for place, wish, row in zip(places, wishes, guesses, strict=True):
            tokens[place] = tokens[place] + row
            wish.draw.count += len(row)

    def _room(self, sample: SampleLane) -> int:
        """Return how many tokens may be guessed: none beyond the limit, the context, or equal parameters."""
        n_tokens = len(sample.text)
        room = min(sample.end - n_tokens - 1, self._n_ctx - (n_tokens - sample.start))
        return min(room, sample.n_early_left - 1) if sample.draws_early else room

    def _advance(
        self, sample: SampleLane, draw: Draw, drawn: list[Drawn], error: StageError | None, events: list[Event]
    ) -> None:
        """Append ``drawn`` to ``sample`` and prepare its next step; end it at its limit or on ``error``."""
        text, last = sample.text, len(sample.text) + len(drawn) == sample.end
        first = len(text) == len(sample.request.prompt)
        if first:
            self.known[sample.id] = sample.known
        for token, logprob, top in drawn:
            text.append(token)
            events.append(Event(sample.id, token, logprob, last and len(text) == sample.end, top))
        if error:
            events.append(Event(sample.id, -1, nan, True, error=error))
            self.remove(sample.id)
            return
        if sample.history is not None:
            sample.history.extend(text[-len(drawn) :])
        if self._speculation and sample.guesser and draw.count > 1:
            self._speculation.learn(sample.guesser, draw.count - 1, len(drawn) - 1)
        if last:
            self.remove(sample.id)
        elif len(text) - sample.start > self._n_ctx:
            self._sequences.free(sample)
            sample.start = sample.fed = window_start(len(text), self._n_ctx)
        elif sample.fed >= len(text) and sample.sequence is not None:  # wrong guesses were fed
            sample.fed = len(text) - 1
            self._engine.truncate_sequence(sample.sequence, sample.fed - sample.start)
        if first:
            self._sequences.share(sample)
