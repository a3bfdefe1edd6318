"""Guessing ahead: tokens that samples will probably draw, so that one step can check several of them.

A step that waits for its weights checks a few tokens more in little more time. As position *t* of a sample always
uses the same random number, a guess is right only if it is what would have been drawn anyway: guesses change speed
alone. They come from n-grams of the text so far or from a smaller model; how many are made depends on how many were
right before and on what a row costs. Knows nothing of where a sample ends, or of other work in a step.
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
"""Above it a text hardly ever repeats an n-gram, and none is looked for."""

PROMPT = 16
"""Tokens that a draft model reads at once from which on they are read the way that is fastest for many."""

CATCH_UP = 256
"""Tokens of a text that the draft model reads at most before a step."""

_LONGEST, _SHORTEST = 4, 2  # lengths of the n-grams that are looked for
_DRAFT = 0
_PRIORS = {2: 0.2, 3: 0.4, 4: 0.6, _DRAFT: 0.6}  # first estimates of how often a guess is right, by source
_PRIOR_WEIGHT, _MEMORY = 3, 30  # guesses that a first estimate counts for, and that an estimate remembers
_FORGET = 1 / 256  # way back to the first estimate at each step for which the guesses did not pay


class NGrams:
    """Where the n-grams of a growing ``text`` last occurred. Takes constant time for a token."""

    def __init__(self, text: list[int]) -> None:
        self._text = text
        self._after: dict[tuple[int, ...], int] = {}  # n-gram -> index of the token behind it
        self._seen = _SHORTEST  # n-grams that end before this index have been taken in

    def match(self) -> tuple[int, int]:
        """How many of the last tokens occurred together before, and where that occurrence ended; (0, 0) if none."""
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
        """The ``n`` tokens from index ``end`` on; beyond the text's own end it goes on repeating itself."""
        period = len(self._text) - end
        copied = self._text[end : end + n]
        return copied if n <= period else [copied[i % period] for i in range(n)]


@dataclass(eq=False, slots=True)
class Guesser:
    """What is known of one sample; made by :meth:`Speculation.start`."""

    text: list[int]
    """The sample's tokens; grown by its owner."""
    ngrams: NGrams
    source: int = 0
    """What the last guesses were made from: length of an n-gram, or the draft model."""
    rates: dict[int, float] = field(default_factory=_PRIORS.copy)
    """Source -> estimate of the probability that its next guess is right if those before it are."""
    counts: dict[int, int] = field(default_factory=lambda: dict.fromkeys(_PRIORS, _PRIOR_WEIGHT))
    """Source -> how many guesses that estimate is from."""
    start: int = 0
    """The draft model's sequence, if there is one, holds ``text[start:fed]`` but for guesses."""
    fed: int = 0
    sequence: int | None = None

    def learn(self, right: bool) -> None:
        """Take in whether a guess was right."""
        count = self.counts[self.source] = min(self.counts[self.source] + 1, _MEMORY)
        self.rates[self.source] += (right - self.rates[self.source]) / count


class Wish(NamedTuple):
    """A sample that can use guesses."""

    guesser: Guesser
    draw: Draw
    """Its next draw."""
    room: int
    """Guesses it can use at most; may be negative."""


class Speculation:
    """Guesses for the samples of one scheduler; ``draft`` is a smaller engine that :func:`check_draft` has passed.

    ``config`` is that of the model guessed for.
    """

    def __init__(self, config: ModelConfig, draft: Engine | None = None) -> None:
        self.n_guessed = 0
        """Guesses checked so far."""
        self.n_accepted = 0
        """Of these, how many were right."""
        self._draft = _Draft(draft, min(config.n_ctx, draft.config.n_ctx)) if draft else None
        self._times = StepTimes()
        self._draft_time = 0.0  # seconds a guess, smoothed

    def start(self, text: list[int]) -> Guesser:
        """Begin with a sample whose tokens are ``text``, a list that grows as they are drawn."""
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
        """Guesses for each of ``wishes``, none where they would not pay, for a step of ``rows`` rows without them.

        With them the step has at most :data:`MAX_ROWS` rows, or as many as it had.
        """
        step = _Step(self._times.table(), rows, len(wishes))
        guesses = [self._from_text(wish, step) for wish in wishes]
        if self._draft:
            self._add_drafts(self._draft, wishes, guesses, step)
        return guesses

    def learn(self, guesser: Guesser, n_guessed: int, n_accepted: int) -> None:
        """Of the last guesses for a sample the first ``n_accepted`` were right."""
        self.n_guessed += n_guessed
        self.n_accepted += n_accepted
        for n in range(min(n_accepted + 1, n_guessed)):
            guesser.learn(n < n_accepted)

    def observe(self, rows: int, seconds: float) -> None:
        """A step of ``rows`` rows took ``seconds``."""
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
        """Let the draft model guess where the text gave nothing."""
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
    """A step in the making: rows, the tokens it is likely to draw, and seconds of making guesses."""

    def __init__(self, seconds: list[float], rows: int, n_samples: int) -> None:
        self._seconds = seconds
        self._rows = rows
        self._share = (MAX_ROWS - rows) // max(1, n_samples)
        self._tokens = float(n_samples)
        self._drafting = 0.0

    def add(self, guesser: Guesser, source: int, room: int, extra: float = 0.0) -> int:
        """How many guesses from ``source``, at ``extra`` seconds each, bring the most tokens per second; adds them.

        Where that is none, their rate goes a little way back to the first estimate, so that they are tried again.
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
    """Raise :class:`~gpt2lab.errors.UsageError` unless ``draft`` has the vocabulary of the model it is to guess for."""
    if draft.n_vocab != config.n_vocab:
        raise UsageError(
            f"the draft model has a vocabulary of {draft.n_vocab}, the model itself one of {config.n_vocab}: "
            "choose one with the same"
        )


class _Draft:
    """A smaller model that keeps up with the samples' texts and draws what comes next, as they do.

    It uses their random numbers, parameters and history, so that it draws the same where it has the same opinion.
    """

    def __init__(self, engine: Engine, n_ctx: int) -> None:
        self._engine = engine
        self._n_ctx = n_ctx
        self._sequences: set[int] = set()

    def guess(self, wishes: Sequence[Wish]) -> list[list[int]]:
        """Up to ``room`` tokens for each of ``wishes``; fewer where there is much to be read first."""
        guesses: list[list[int]] = [[] for _ in wishes]
        work = self._behind([wish.guesser for wish in wishes])
        while work:
            sequences = [self._sequence(wishes[i].guesser) for i in work]
            draws = [self._draw(wishes[i], tokens, guesses[i]) for i, tokens in work.items()]
            given = [len(tokens) if len(tokens) >= PROMPT else 0 for tokens in work.values()]
            try:
                drawn = self._engine.step(sequences, list(work.values()), draws, given)
            except SamplingError:  # the model that counts need not fail as well
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
        """What each has not read of its text, by index; what does not fit into this step is left out or cut."""
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
        """Forget guesses that were wrong, and what the context no longer holds."""
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
        """How to draw behind ``tokens``, None if the text does not end there."""
        guesser, draw, _ = wish
        if guesser.fed + len(tokens) < len(guesser.text):
            return None
        history = [*draw.history, *guesses] if draw.history else ()
        return Draw(draw.params, draw.seed, draw.stream, draw.position + len(guesses), history)
