"""CUDA graphs: a whole pass as one launch, because launching its kernels one by one takes longer than they run.

This module knows nothing of what the pass computes.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from threading import Lock
from typing import Any

import torch
from torch import Tensor

Pass = Callable[[Tensor, Tensor], Tensor]
"""A function of the cache and of a pass's rows, whose work depends on nothing else but the shape of the rows."""

RECORDING = Lock()
"""Held while a graph is recorded: all engines record on one stream, and PyTorch cannot give back memory meanwhile."""


class Graphs:
    """``function``, recorded once for every shape of the rows. A call overwrites the result of the one before."""

    def __init__(self, function: Pass) -> None:
        self._function = function
        self._cache: Callable[[], Tensor | None] = lambda: None  # does not keep it
        self._recorded: dict[tuple[int, ...], tuple[Any, Tensor, Tensor]] = {}

    def __call__(self, cache: Tensor, rows: Tensor) -> Tensor:
        """Return what the function returns."""
        if cache is not self._cache():  # a recorded graph reads and writes where the cache was
            self._recorded.clear()
            self._cache = weakref.ref(cache)
        shape = tuple(rows.shape)
        if shape not in self._recorded:
            with RECORDING:
                self._recorded[shape] = self._record(cache, rows)
        graph, given, result = self._recorded[shape]
        given.copy_(rows)
        graph.replay()
        return result

    def _record(self, cache: Tensor, rows: Tensor) -> tuple[Any, Tensor, Tensor]:
        given, graph, side = rows.clone(), torch.cuda.CUDAGraph(), torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._function(cache, given)  # libraries set themselves up, which cannot be recorded
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = self._function(cache, given)
        return graph, given, result
