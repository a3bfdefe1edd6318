"""Rows of numbers that stay in a file, which may be truncated at any time.

This module knows nothing of tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2lab.weights.checkpoint import MappedFile


class MappedRow:
    """A memory-mapped row, read like a :class:`~gpt2lab.data.tokens.Chain`.

    Every access checks that the file still has its size, and copies: the system ends a process that reads a part of a
    map whose file was truncated. Only a truncation within the microseconds of an access goes unnoticed. Accesses raise
    :class:`~gpt2lab.errors.CheckpointError`.
    """

    def __init__(self, file: MappedFile, start: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self.dtype = dtype
        self._file = file
        self._row = file.view(start, dtype, shape)

    def __len__(self) -> int:
        return len(self._row)

    def take(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """Return the values at ``places``, in an array of the shape of ``places``."""
        self._file.check_whole()
        return self._row.take(places)

    def __getitem__(self, piece: slice) -> NDArray[Any]:
        """Return a copy of a slice."""
        self._file.check_whole()
        copy: NDArray[Any] = self._row[piece].copy()
        return copy
