"""An engine made of :mod:`gpt2lab.reference` and :mod:`gpt2lab.sampling.rules`: slow, simple, for comparison.

Every sequence is computed by itself, so other sequences cannot affect it. Keys and values are whole NumPy arrays
that are never changed in place, so a fork shares them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gpt2lab import reference
from gpt2lab.engines.protocol import Draw, Drawn
from gpt2lab.engines.python_draws import draw_rows

if TYPE_CHECKING:
    from gpt2lab.engines.protocol import Outputs
    from gpt2lab.weights.checkpoint import Checkpoint


class ReferenceEngine:
    """An :class:`~gpt2lab.engines.protocol.Engine` that runs on NumPy; all weights are held as float32."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.config = checkpoint.config
        self._weights = dict(checkpoint.tensors)
        self._handles = count()
        self._past: dict[int, npt.NDArray[np.float32]] = {}  # [n_layer, 2, n_head, n_seq, head_dim]

    @property
    def n_sequences(self) -> int:
        """The number of sequences held."""
        return len(self._past)

    @property
    def kv_cache_bytes_per_token(self) -> int:
        """Bytes of keys and values per token."""
        return self.config.kv_cache_bytes(1)

    @property
    def kv_block_tokens(self) -> int:
        """Return 0: a sequence that grows is copied as a whole."""
        return 0

    def new_sequence(self) -> int:
        """Make an empty sequence."""
        config = self.config
        return self._hold(np.zeros((config.n_layer, 2, config.n_head, 0, config.head_dim), np.float32))

    def fork_sequence(self, sequence: int) -> int:
        """Make a sequence with the same tokens, sharing their keys and values."""
        return self._hold(self._past[sequence])

    def free_sequence(self, sequence: int) -> None:
        """Free a sequence."""
        del self._past[sequence]

    def read_sequence(self, sequence: int) -> npt.NDArray[np.floating]:
        """Return a copy of the keys and values of a sequence: float32 ``[n_layer, 2, n_head, n_tokens, head_dim]``."""
        return np.array(self._past[sequence])

    def write_sequence(self, values: npt.NDArray[np.floating]) -> int:
        """Make a sequence with these keys and values."""
        return self._hold(values.astype(np.float32))

    def release_memory(self) -> None:
        """Do nothing: NumPy returns the memory of freed sequences."""

    def truncate_sequence(self, sequence: int, length: int) -> None:
        """Forget all but the first ``length`` tokens."""
        self._past[sequence] = self._past[sequence][:, :, :, :length].copy()  # a view would hold all of it

    def forward(
        self, sequences: Sequence[int], tokens: Sequence[Sequence[int]], outputs: Outputs = "last"
    ) -> npt.NDArray[np.float32]:
        """Feed tokens and return their logits; see :meth:`gpt2lab.engines.protocol.Engine.forward`."""
        rows = [np.empty((0, self.config.n_vocab), np.float32)]
        with self._all_or_nothing(sequences):
            for sequence, ids in zip(sequences, tokens, strict=True):
                logits = self._feed(sequence, ids)  # [len(ids), n_vocab]
                if outputs != "none":
                    rows.append(logits if outputs == "all" else logits[-1:])
        return np.concatenate(rows)

    def step(
        self, sequences: Sequence[int], tokens: Sequence[Sequence[int]], draws: Sequence[Draw | None]
    ) -> list[list[Drawn]]:
        """Feed tokens and draw after them; see :meth:`gpt2lab.engines.protocol.Engine.step`."""
        drawn: list[list[Drawn]] = []
        with self._all_or_nothing(sequences):
            for sequence, ids, draw in zip(sequences, tokens, draws, strict=True):
                logits = self._feed(sequence, ids)  # [len(ids), n_vocab]
                drawn.append([*draw_rows(logits[-draw.count :], ids[-draw.count :], draw)] if draw else [])
        return drawn

    @contextmanager
    def _all_or_nothing(self, sequences: Sequence[int]) -> Iterator[None]:
        """Restore ``sequences`` as they were if anything is raised."""
        before = {sequence: self._past[sequence] for sequence in sequences}
        try:
            yield
        except BaseException:
            self._past |= before
            raise

    def _hold(self, past: npt.NDArray[np.float32]) -> int:
        handle = next(self._handles)
        self._past[handle] = past
        return handle

    def _feed(self, sequence: int, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        past = self._past[sequence]
        logits, present = reference.forward(self._weights, self.config, ids, past)
        self._past[sequence] = np.concatenate([past, present], axis=-2)
        return logits
