"""Guessing ahead: tokens that samples will probably draw, so that one step can check several of them.

A step that is bound by reading weights checks a few more tokens in little more time. As position *t* of a sample
always uses the same random number, a guess is right only if the same token would have been drawn anyway: guesses
change only the speed. They come from n-grams of the text so far or from a smaller model; their number depends on how
many were right before and on the cost of a row. This module knows nothing of where a sample ends, or of other work in
a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from gpt2lab.engines.protocol import Draw
from gpt2lab.errors import SamplingError, UsageError
from gpt2lab.generation.step_times import MAX_ROWS, SMOOTH, StepTimes
from gpt2lab.generation.window import window_start

if TYPE_CHECKING:
    from gpt2lab.config import ModelConfig
    from gpt2lab.engines.protocol import Engine

MAX_TEMPERATURE = 1.5
"""The highest temperature at which n-grams are looked up; above it a text hardly ever repeats one."""

CATCH_UP = 256
"""The most tokens of the texts that the draft model is fed to catch up before a step."""

_LONGEST, _SHORTEST = 4, 2  # lengths of the n-grams that are looked up
_DRAFT = 0
_PRIORS = {2: 0.2, 3: 0.4, 4: 0.6, _DRAFT: 0.6}  # first estimates of how often a guess is right, by source
_PRIOR_WEIGHT, _MEMORY = 3, 30  # number of guesses that a first estimate counts as, and that an estimate remembers
_FORGET = 1 / 256  # part of the way back to the first estimate, taken at each step for which guesses do not pay


class NGrams:
    """An index of where the n-grams of a growing ``text`` last occurred. It takes constant time per token."""

    def __init__(self, text: list[int]) -> None:
        self._text = text
        self._after: dict[tuple[int, ...], int] = {}  # n-gram -> index of the token after it
        self._seen = _SHORTEST  # n-grams that end before this index are indexed

    def match(self) -> tuple[int, int]:
        """Return the length of the longest final n-gram that occurred before, and where it ended; (0, 0) if none."""
        text, after = self._text, self._after
        n_tokens = len(text)
        for end in range(self._seen, n_tokens):
            for length in range(_SHORTEST, min(_LONGEST, end) + 1):
                after[tuple(text[end - length : end])] = end
        self._seen = max(self._seen, n_tokens)
        for length in range(min(_LONGEST, n_tokens), _SHORTEST - 1, -1):
            if end := after.get(tuple(text[-length:]), 0):
                return length, end
        return 0, 0

    def copy(self, end: int, n: int) -> list[int]:
        """Return the ``n`` tokens from index ``end`` on; beyond the end of the text they repeat."""
        period = len(self._text) - end
        copied = self._text[end : end + n]
        return copied if n <= period else [copied[i % period] for i in range(n)]


@dataclass(eq=False, slots=True)
class Guesser:
    """The record of one sample; made by :meth:`Speculation.start`."""

    text: list[int]
    """The sample's tokens; its owner appends to them."""
    ngrams: NGrams
    source: int = 0
    """The source of the last guesses: length of an n-gram, or the draft model."""
    rates: dict[int, float] = field(default_factory=_PRIORS.copy)
    """Source -> estimated probability that its next guess is right if those before it are."""
    counts: dict[int, int] = field(default_factory=lambda: dict.fromkeys(_PRIORS, _PRIOR_WEIGHT))
    """Source -> number of guesses behind that estimate."""
    start: int = 0
    """Start of ``text[start:fed]``, the part that the draft model's sequence, if any, holds besides guesses."""
    fed: int = 0
    sequence: int | None = None

    def learn(self, right: bool) -> None:
        """Record whether a guess was right."""
        count = self.counts[self.source] = min(self.counts[self.source] + 1, _MEMORY)
        self.rates[self.source] += (right - self.rates[self.source]) / count


class Wish(NamedTuple):
    """A sample that can use guesses."""

    guesser: Guesser
    draw: Draw
    """The sample's next draw."""
    room: int
    """The most guesses it can use; may be negative."""


class Speculation:
    """Guesses for the samples of one scheduler; ``draft`` is a smaller engine that :func:`check_draft` has passed.

    ``config`` is the config of the model that the guesses are for.
    """

    def __init__(self, config: ModelConfig, draft: Engine | None = None) -> None:
        self.n_guessed = 0
        """The number of guesses checked so far."""
        self.n_accepted = 0
        """The number of those that were right."""
        self._draft = _Draft(draft, min(config.n_ctx, draft.config.n_ctx)) if draft else None
        self._times = StepTimes()
        self._draft_time = 0.0  # seconds per guess, smoothed

    def start(self, text: list[int]) -> Guesser:
        """Start guessing for a sample whose tokens are ``text``, a list that grows as they are drawn."""
        return Guesser(text, NGrams(text))

    def stop(self, guesser: Guesser) -> None:
        """Free what is held for a sample."""
        if self._draft:
            self._draft.free(guesser)

    def close(self) -> None:
        """Free what is held for all samples."""
        if self._draft:
            self._draft.close()

    def guess(self, wishes: Sequence[Wish], rows: int) -> list[list[int]]:
        """Return guesses for each of ``wishes`` (none if they would not pay), for a step of ``rows`` rows without them.

        With them the step has at most :data:`MAX_ROWS` rows, or as many as it had.
        """
        step = _Step(self._times.table(), rows, len(wishes))
        guesses = [self._from_text(wish, step) for wish in wishes]
        if self._draft:
            self._add_drafts(self._draft, wishes, guesses, step)
        return guesses

    def learn(self, guesser: Guesser, n_guessed: int, n_accepted: int) -> None:
        """Record that the first ``n_accepted`` of the last guesses for a sample were right."""
        self.n_guessed += n_guessed
        self.n_accepted += n_accepted
        for n in range(min(n_accepted + 1, n_guessed)):
            guesser.learn(n < n_accepted)

    def observe(self, rows: int, seconds: float) -> None:
        """Record that a step of ``rows`` rows took ``seconds``."""
        self._times.observe(rows, seconds)

    def _from_text(self, wish: Wish, step: _Step) -> list[int]:
        guesser, draw, room = wish
        if draw.params.temperature > MAX_TEMPERATURE:
            return []
        length, end = guesser.ngrams.match()
        if not length or (self._draft and guesser.rates[length] < guesser.rates[_DRAFT]):
            return []
        n = step.add(guesser, length, room)
        return guesser.ngrams.copy(end, n) if n else []

    def _add_drafts(self, draft: _Draft, wishes: Sequence[Wish], guesses: list[list[int]], step: _Step) -> None:
        """Let the draft model guess for samples whose own text gave no guesses."""
        asked: dict[int, Wish] = {}
        for i, (guesser, draw, room) in enumerate(wishes):
            if not guesses[i] and (n := step.add(guesser, _DRAFT, room, self._draft_time)):
                asked[i] = Wish(guesser, draw, n)
        if not asked:
            return
        began = perf_counter()
        for i, row in zip(asked, draft.guess(list(asked.values())), strict=True):
            guesses[i] = row
        if n_made := sum(len(guesses[i]) for i in asked):
            seconds = (perf_counter() - began) / n_made
            self._draft_time += (seconds - self._draft_time) * (SMOOTH if self._draft_time else 1)


class _Step:
    """A step being planned: its rows, the tokens it is likely to draw, and the seconds spent on guesses."""

    def __init__(self, seconds: list[float], rows: int, n_samples: int) -> None:
        self._seconds = seconds
        self._rows = rows
        self._share = (MAX_ROWS - rows) // max(1, n_samples)
        self._tokens = float(n_samples)
        self._drafting = 0.0

    def add(self, guesser: Guesser, source: int, room: int, extra: float = 0.0) -> int:
        """Add as many guesses from ``source``, at ``extra`` seconds each, as bring the most tokens per second.

        Returns their number. If that is 0, their rate moves a little back to the first estimate, so that they are
        tried again.
        """
        rate, most = guesser.rates[source], min(room, self._share)
        if most <= 0:
            return 0
        tokens, chance, n, likely = self._tokens, 1.0, 0, self._tokens
        best = tokens / (self._seconds[self._rows] + self._drafting)
        for i in range(1, most + 1):
            chance *= rate
            tokens += chance
            pace = tokens / (self._seconds[self._rows + i] + self._drafting + i * extra)
            if pace > best:
                best, n, likely = pace, i, tokens
        guesser.source = source
        if not n:
            guesser.rates[source] += _FORGET * (_PRIORS[source] - rate)
        self._rows += n
        self._tokens = likely
        self._drafting += n * extra
        return n


def check_draft(draft: ModelConfig, config: ModelConfig) -> None:
    """Raise :class:`~gpt2lab.errors.UsageError` unless ``draft`` has the vocabulary of the model it guesses for."""
    if draft.n_vocab != config.n_vocab:
        raise UsageError(
            f"the draft model has a vocabulary of {draft.n_vocab}, the model itself one of {config.n_vocab}: "
            "choose one with the same"
        )


class _Draft:
    """A smaller model that keeps up with the samples' texts and draws what comes next, as they do.

    It uses their random numbers, parameters and history, so it draws the same token where its distribution agrees.
    """

    def __init__(self, engine: Engine, n_ctx: int) -> None:
        self._engine = engine
        self._n_ctx = n_ctx
        self._sequences: set[int] = set()

    def guess(self, wishes: Sequence[Wish]) -> list[list[int]]:
        """Return up to ``room`` tokens for each of ``wishes``; fewer if the draft has much text to catch up on."""
        guesses: list[list[int]] = [[] for _ in wishes]
        work = self._behind([wish.guesser for wish in wishes])
        while work:
            sequences = [self._sequence(wishes[i].guesser) for i in work]
            draws = [self._draw(wishes[i], tokens, guesses[i]) for i, tokens in work.items()]
            try:
                drawn = self._engine.step(sequences, list(work.values()), draws)
            except SamplingError:  # the main model may well succeed
                for i in work:
                    self.free(wishes[i].guesser)
                break
            todo: dict[int, list[int]] = {}
            for (i, tokens), row in zip(work.items(), drawn, strict=True):
                guesser = wishes[i].guesser
                guesser.fed += len(tokens)
                if row:
                    guesses[i].append(row[0].token)
                    if len(guesses[i]) < wishes[i].room and guesser.fed - guesser.start < self._n_ctx:
                        todo[i] = [row[0].token]
            work = todo
        return guesses

    def free(self, guesser: Guesser) -> None:
        """Forget a sample."""
        if guesser.sequence is not None:
            self._sequences.discard(guesser.sequence)
            self._engine.free_sequence(guesser.sequence)
            guesser.sequence = None

    def close(self) -> None:
        """Forget all samples."""
        while self._sequences:
            self._engine.free_sequence(self._sequences.pop())

    def _behind(self, guessers: Sequence[Guesser]) -> dict[int, list[int]]:
        """Return the unread part of each text, by index; parts that do not fit into this step are cut or left out."""
        work: dict[int, list[int]] = {}
        room = CATCH_UP
        for i, guesser in enumerate(guessers):
            self._rewind(guesser)
            tokens = guesser.text[guesser.fed : guesser.fed + room]
            room -= len(tokens)
            if tokens:
                work[i] = tokens
        return work

    def _rewind(self, guesser: Guesser) -> None:
        """Forget wrong guesses, and tokens that the context no longer holds."""
        n_tokens = len(guesser.text)
        start = window_start(n_tokens, self._n_ctx)
        if guesser.sequence is None or start != guesser.start:
            self.free(guesser)
            guesser.start = guesser.fed = start
        elif guesser.fed >= n_tokens:
            guesser.fed = n_tokens - 1
            self._engine.truncate_sequence(guesser.sequence, guesser.fed - start)

    def _sequence(self, guesser: Guesser) -> int:
        if guesser.sequence is None:
            guesser.sequence = self._engine.new_sequence()
            self._sequences.add(guesser.sequence)
        return guesser.sequence

    def _draw(self, wish: Wish, tokens: list[int], guesses: list[int]) -> Draw | None:
        """Return how to draw after ``tokens``, None if the text does not end there."""
        guesser, draw, _ = wish
        if guesser.fed + len(tokens) < len(guesser.text):
            return None
        history = [*draw.history, *guesses] if draw.history else ()
        return Draw(draw.params, draw.seed, draw.stream, draw.position + len(guesses), history)
