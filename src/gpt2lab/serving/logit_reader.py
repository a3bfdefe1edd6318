"""Logits after any tokens, for clients that explore a text: a prefix that two requests share is fed once.

Reading runs on the worker's thread, in pieces between two steps. This module knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
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


class LogitReader:
    """A reader of logits with ``engine``, whose ``sequences`` may keep what is read."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, sequences: Sequences) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._sequences = sequences

    def read(self, tokens: Sequence[int], client: Hashable = None) -> Reading:
        """Return the logits ``[n_vocab]`` (float32) after ``tokens`` (at least one).

        Yields between pieces. Ids that have no text, which no completion draws, get -inf. Only what was read for the
        same ``client`` is reused.
        """
        sequence, known = self._sequences.begin(tokens[:-1], client)  # the last is fed, for its logits
        try:
            *starts, last = range(known, len(tokens), PREFILL_CHUNK)
            for start in starts:
                self._feed(sequence, tokens[start : start + PREFILL_CHUNK], "none")
                yield
            row = self._feed(sequence, tokens[last:], "last")[0]
        except BaseException:
            self._sequences.free(sequence)
            raise
        self._sequences.end(sequence, tokens, client)
        return without_text(row, self._tokenizer)

    def _feed(self, sequence: int, ids: Sequence[int], outputs: Outputs) -> npt.NDArray[np.float32]:
        return self._sequences.relieved(lambda: self._engine.forward([sequence], [ids], outputs))
