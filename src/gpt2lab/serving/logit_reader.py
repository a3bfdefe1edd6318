"""Logits after any tokens, for clients that explore a text: a prefix that two requests share is fed once.

Reading runs on the worker's thread, in pieces between two steps. This module knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from gpt2lab.distribution import without_text
from gpt2lab.generation.scheduler import PREFILL_CHUNK

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from gpt2lab.engines.protocol import Engine, Outputs
    from gpt2lab.generation.sequences import Sequences
    from gpt2lab.serving.worker import Reading
    from gpt2lab.tokenizer import Tokenizer

Marked = list[tuple[int, bool]]
"""Ids, each with True if it was given, False if it was drawn: an engine may compute the two in different ways."""


class LogitReader:
    """A reader of logits with ``engine``, whose ``sequences`` may keep what is read."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, sequences: Sequences) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._sequences = sequences

    def read(self, tokens: Sequence[int], drawn: int, client: Hashable = None) -> Reading:
        """Return the logits ``[n_vocab]`` (float32) after ``tokens`` (at least one); the last ``drawn`` were drawn.

        Yields between pieces. Ids that have no text, which no completion draws, get -inf. Only what was read for the
        same ``client`` is not read again.
        """
        n_given = len(tokens) - drawn
        marked = [(id, place < n_given) for place, id in enumerate(tokens)]
        sequence, known = self._sequences.begin(tokens[:-1], n_given, client)  # the last is fed, for its logits
        try:
            *pieces, last = _pieces(marked[known:])
            for ids, given in pieces:
                self._feed(sequence, ids, "none", given)
                yield
            row = self._feed(sequence, last[0], "last", last[1])[0]
        except BaseException:
            self._sequences.free(sequence)
            raise
        self._sequences.end(sequence, tokens, n_given, client)
        return without_text(row, self._tokenizer)

    def _feed(self, sequence: int, ids: list[int], outputs: Outputs, given: bool) -> npt.NDArray[np.float32]:
        return self._sequences.relieved(lambda: self._engine.forward([sequence], [ids], outputs, given=given))


def _pieces(marked: Marked) -> Iterator[tuple[list[int], bool]]:
    """Yield runs of ids that were all given or all drawn, none longer than :data:`PREFILL_CHUNK`."""
    for given, run in groupby(marked, key=lambda each: each[1]):
        ids = [id for id, _ in run]
        for at in range(0, len(ids), PREFILL_CHUNK):
            yield ids[at : at + PREFILL_CHUNK], given
