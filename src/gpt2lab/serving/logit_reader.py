"""Logits after any tokens, for clients that explore a text: a prefix that two requests share is fed once.

Reading runs on the worker's thread, in pieces between two steps. It keeps one sequence of the engine until the model
has been idle for a while. This module knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from gpt2lab.distribution import without_text
from gpt2lab.generation.scheduler import PREFILL_CHUNK

if TYPE_CHECKING:
    from gpt2lab.engines.protocol import Engine
    from gpt2lab.serving.worker import Reading
    from gpt2lab.tokenizer import Tokenizer

Marked = list[tuple[int, bool]]
"""Ids, each with True if it was given, False if it was drawn: an engine may compute the two in different ways."""


class LogitReader:
    """A reader of logits with ``engine``."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._kept: Marked = []
        self._sequence: int | None = None

    def read(self, tokens: Sequence[int], drawn: int) -> Reading:
        """Return the logits ``[n_vocab]`` (float32) after ``tokens`` (at least one); the last ``drawn`` were drawn.

        Yields between pieces. Ids that have no text, which no completion draws, get -inf.
        """
        n_given = len(tokens) - drawn
        marked = [(id, place < n_given) for place, id in enumerate(tokens)]
        known = min(_n_common(marked, self._kept), len(marked) - 1)  # the last token is always fed, for its logits
        sequence = self._begin(known)
        try:
            *pieces, last = _pieces(marked[known:])
            for ids, given in pieces:
                self._engine.forward([sequence], [ids], "none", given=given)
                yield
            row = self._engine.forward([sequence], [last[0]], "last", given=last[1])[0]
        except BaseException:
            self._engine.free_sequence(sequence)
            raise
        self._keep(sequence, marked)
        return without_text(row, self._tokenizer)

    def forget(self) -> None:
        """Free the kept sequence."""
        if self._sequence is not None:
            self._engine.free_sequence(self._sequence)
        self._sequence, self._kept = None, []

    def _begin(self, known: int) -> int:
        """Return a sequence that holds the first ``known`` of the kept tokens."""
        if self._sequence is None or not known:
            return self._engine.new_sequence()
        sequence = self._engine.fork_sequence(self._sequence)
        self._engine.truncate_sequence(sequence, known)
        return sequence

    def _keep(self, sequence: int, marked: Marked) -> None:
        """Keep the sequence just read, unless the kept one begins with all of its tokens."""
        if marked == self._kept[: len(marked)]:
            self._engine.free_sequence(sequence)
            return
        self.forget()
        self._sequence, self._kept = sequence, marked


def _n_common(a: Marked, b: Marked) -> int:
    """Return the length of the common prefix."""
    return next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _pieces(marked: Marked) -> Iterator[tuple[list[int], bool]]:
    """Yield runs of ids that were all given or all drawn, none longer than :data:`PREFILL_CHUNK`."""
    for given, run in groupby(marked, key=lambda each: each[1]):
        ids = [id for id, _ in run]
        for at in range(0, len(ids), PREFILL_CHUNK):
            yield ids[at : at + PREFILL_CHUNK], given
