"""Documents joined into a ring of tokens, and its windows for training and validation.

The windows of a batch depend only on the seed and the number of windows before it, so resuming needs only that number.
This module knows nothing of text, files or models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpt2lab.config import END_OF_TEXT
from gpt2lab.data.tokens import Documents
from gpt2lab.errors import UsageError

Sampling = Literal["epoch", "uniform"]

_SCAN = 1 << 22  # tokens read at once when scanning them all


class Ring:
    """Spans of ``documents.tokens`` with ``separator`` before each; the end meets the beginning. Copies no tokens.

    Args:
        documents: the source of the tokens.
        begins, ends: bounds of each span, int64 [n]; by default, all documents in order. No span is empty.
        separator: the id of ``<|endoftext|>``; None puts nothing between documents, for vocabularies without that id.
        chunks: ring positions that no window of uniform sampling crosses, int64 ascending from 0 to ``len(ring)``.
    """

    def __init__(
        self,
        documents: Documents,
        begins: NDArray[np.int64] | None = None,
        ends: NDArray[np.int64] | None = None,
        separator: int | None = END_OF_TEXT,
        chunks: NDArray[np.int64] | None = None,
    ) -> None:
        if begins is None or ends is None:
            begins, ends = documents.starts, documents.starts + documents.lengths
        self._documents = documents
        self._begins = begins
        self.separator = separator
        self._at = span_places(begins, ends, separator)
        self.chunks = np.asarray([0, len(self)]) if chunks is None else chunks

    def __len__(self) -> int:
        """Return the number of tokens, including separators."""
        return int(self._at[-1])

    @property
    def n_documents(self) -> int:
        """Number of spans."""
        return len(self._begins)

    def take(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the ids at ``places`` modulo ``len(self)`` and whether each is trained on, shaped like ``places``."""
        places = places % len(self)
        span = np.searchsorted(self._at, places, side="right") - 1
        offset = places - self._at[span]
        if self.separator is None:
            marks = np.zeros(places.shape, dtype=bool)
            source = self._begins[span] + offset
        else:
            marks = offset == 0
            source = np.where(marks, 0, self._begins[span] + offset - 1)
        ids = self._documents.tokens.take(source).astype(np.int64)
        ids[marks] = self.separator or 0
        trained = self._documents.trained
        if trained is None:
            return ids, np.ones(places.shape, dtype=bool)
        return ids, trained.take(source).astype(bool) | marks

    def digest(self) -> str:
        """Return the SHA-256, in hex, of all ids (uint32, little-endian), each block followed by its trained mask."""
        sha = hashlib.sha256()
        for first in range(0, len(self), _SCAN):
            ids, trained = self.take(np.arange(first, min(first + _SCAN, len(self))))
            sha.update(ids.astype("<u4").tobytes())
            sha.update(trained.tobytes())
        return sha.hexdigest()

    def used_ids(self) -> NDArray[np.int64]:
        """Return the distinct ids in the ring, ascending."""
        used = np.zeros(1 << 16, dtype=bool)
        for first in range(0, len(self), _SCAN):
            ids, _ = self.take(np.arange(first, min(first + _SCAN, len(self))))
            if ids.max() >= len(used):
                used = np.concatenate([used, np.zeros(int(ids.max()) + 1 - len(used), dtype=bool)])
            used[ids] = True
        return np.flatnonzero(used)


def span_places(begins: NDArray[np.int64], ends: NDArray[np.int64], separator: int | None) -> NDArray[np.int64]:
    """Return the start of each span (with its separator in front) in a ring, and the ring's end; int64 [n + 1]."""
    sizes = ends - begins + (separator is not None)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])


@dataclass(frozen=True)
class Batch:
    """Windows of one length.

    Attributes:
        tokens: the inputs, int64 [size, length].
        targets: the token after each input, int64 [size, length].
        trained: whether a target counts in the loss, bool [size, length].
    """

    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]
    trained: NDArray[np.bool_]


class Windows:
    """Windows of ``length + 1`` tokens (``length`` inputs and their targets) of a ring, in seeded order.

    With ``sampling="epoch"``, each epoch cuts the ring at a different seeded place and shuffles its windows. An epoch
    is ``len(self)`` windows and shows every token once as a target, except for a remainder shorter than a window, which
    differs each epoch. With ``"uniform"``, each window begins at any place where it crosses no boundary of the ring's
    chunks, as in the original ``train.py``.

    Attributes:
        ring: the source of the tokens.
        length: the windows' length in tokens: the requested one, or the most that a shorter ring (or chunk) allows.

    Raises :class:`UsageError` if the ring has fewer than two tokens.
    """

    def __init__(self, ring: Ring, length: int, seed: int, sampling: Sampling = "epoch") -> None:
        if len(ring) < 2:
            raise UsageError("the dataset is empty: it has no tokens to train on")
        room = len(ring) if sampling == "epoch" else int(np.diff(ring.chunks).max())
        self.ring = ring
        self.length = max(1, min(length, room - 1))
        self._seed = seed
        self._sampling = sampling
        self._epoch = lru_cache(maxsize=2)(self._shuffle)
        self._free = np.cumsum([0, *np.maximum(0, np.diff(ring.chunks) - self.length)])  # start positions, by chunk

    def __len__(self) -> int:
        """Return the number of windows in an epoch."""
        return len(self.ring) // self.length

    def batch(self, position: int, size: int) -> Batch:
        """Return ``size`` windows from number ``position`` on, counted since the start of training."""
        begin = self._epoch_start if self._sampling == "epoch" else self._uniform_start
        return self._cut(np.asarray([begin(at) for at in range(position, position + size)], dtype=np.int64))

    def in_order(self, size: int, count: int | None = None) -> Iterator[Batch]:
        """Yield windows from start to end without overlap, ``size`` at a time, for validation.

        Yields all windows, or ``count`` evenly spaced ones if there are more; always the same ones.
        """
        total = len(self)
        chosen = np.arange(total) if count is None or count >= total else np.arange(count) * total // count
        for first in range(0, len(chosen), size):
            yield self._cut(self.length * chosen[first : first + size])

    def used_ids(self) -> NDArray[np.int64]:
        """Return the distinct ids that windows can contain, ascending."""
        return self.ring.used_ids()

    def _epoch_start(self, position: int) -> int:
        return int(self._epoch(position // len(self))[position % len(self)])

    def _shuffle(self, epoch: int) -> NDArray[np.int64]:
        """Return the starts of an epoch's windows, int64 [len(self)], in the order of training."""
        random = np.random.default_rng([self._seed, epoch])
        offset = int(random.integers(self.length))
        starts: NDArray[np.int64] = offset + self.length * random.permutation(len(self))
        return starts

    def _uniform_start(self, position: int) -> int:
        place = int(np.random.default_rng([self._seed, 0, position]).integers(self._free[-1]))
        chunk = int(np.searchsorted(self._free, place, side="right")) - 1
        return int(self.ring.chunks[chunk] + place - self._free[chunk])

    def _cut(self, starts: NDArray[np.int64]) -> Batch:
        ids, trained = self.ring.take(starts[:, None] + np.arange(self.length + 1))  # [size, length + 1]
        return Batch(ids[:, :-1], ids[:, 1:], trained[:, 1:])
