"""Tokens of many documents, in one row or in several that read as one.

All parts of :mod:`gpt2lab.data` exchange this form. Rows may be memory-mapped, so nothing here copies more than the
caller requests. This module knows nothing of text, files or separators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2lab.data.mapped import MappedRow

IdArray = NDArray[Any]
"""Token ids, of :func:`id_type`."""


def id_type(n_vocab: int) -> type[np.unsignedinteger[Any]]:
    """Return the smallest type for ids below ``n_vocab``: uint16 up to 65536, as for GPT-2, else uint32."""
    return np.uint16 if n_vocab <= 1 << 16 else np.uint32


class Chain:
    """Arrays of one type that read like one concatenated array, without copying them."""

    def __init__(self, parts: Sequence[NDArray[Any] | Chain | MappedRow]) -> None:
        if not parts:
            raise ValueError("a chain needs at least one array")
        self._parts = list(parts)
        self._begins = np.cumsum([0, *map(len, parts)])  # int64 [parts + 1]
        self.dtype: np.dtype[Any] = parts[0].dtype

    def __len__(self) -> int:
        return int(self._begins[-1])

    def take(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """Return the values at ``places`` (from 0 to ``len(self) - 1``), in an array of the shape of ``places``."""
        part_of = np.searchsorted(self._begins, places, side="right") - 1
        values = np.empty(places.shape, dtype=self.dtype)
        for part in np.unique(part_of):
            here = part_of == part
            values[here] = self._parts[part].take(places[here] - self._begins[part])
        return values

    def __getitem__(self, piece: slice) -> NDArray[Any]:
        """Return a slice without a step: a view if it lies in one array, else a copy."""
        first, last, _ = piece.indices(len(self))
        begin, end = np.searchsorted(self._begins, [first, max(first, last - 1)], side="right") - 1
        parts = [
            array[max(0, first - at) : max(0, last - at)]
            for array, at in zip(self._parts[begin : end + 1], self._begins[begin : end + 1], strict=True)
        ]
        if not parts:
            return np.empty(0, dtype=self.dtype)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(frozen=True)
class Documents:
    """Tokens of documents, one after another, without separators. No document is empty.

    Attributes:
        tokens: ids, uint16 (uint32 for a vocabulary beyond 65536) [n_tokens].
        starts: start of each document in ``tokens``, int64 [n_documents], ascending from 0.
        trained: bool or uint8 [n_tokens], false for tokens that are not trained on, such as a prompt's; None: all are.
        characters: length of each document's text, int64 [n_documents]; None if unknown.
    """

    tokens: IdArray | Chain | MappedRow
    starts: NDArray[np.int64]
    trained: NDArray[np.bool_] | NDArray[np.uint8] | Chain | MappedRow | None = None
    characters: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, documents: Sequence[Sequence[int] | IdArray], n_vocab: int = 1 << 16) -> Documents:
        """Join documents given as rows of ids; empty ones are left out."""
        rows = [np.asarray(document, dtype=id_type(n_vocab)) for document in documents if len(document)]
        lengths = [0, *map(len, rows)]
        return cls(
            np.concatenate([np.empty(0, id_type(n_vocab)), *rows]),
            np.cumsum(lengths[:-1] if rows else []).astype(np.int64),
        )

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens of each document, int64 [n_documents]."""
        return np.diff(self.starts, append=np.int64(len(self.tokens)))

    def __getitem__(self, index: int) -> IdArray:
        """Return the ids of one document."""
        begin = int(self.starts[index])
        end = int(self.starts[index + 1]) if index + 1 < len(self) else len(self.tokens)
        return self.tokens[begin:end]
