"""Memory for large tensors that come and go in every update. This module knows nothing of what is in them."""

from __future__ import annotations

import bisect
import math
import mmap
import weakref
from collections import deque

import numpy as np
import torch
from torch import Tensor

from gpt2lab.system.memory import reserve_pages, return_pages

LEAST = 1 << 20  # bytes; smaller tensors are left to PyTorch


class Pool:
    """A block of CPU memory that is cut up for tensors and merged again, and whose pages stay with the process.

    The system's allocator either returns large blocks at once, so that each new one costs page faults, or keeps them
    and leaves holes that nothing fits. Here a tensor gets the smallest hole that it fits into, so gradients take the
    place of activations. Only the part of the ``capacity`` bytes that has been used takes memory. Tensors may be freed
    in any thread, but only one thread at a time may allocate.
    """

    def __init__(self, capacity: int) -> None:
        self._free: list[tuple[int, int]] = []  # from, to; ascending, no two adjacent
        self._returned: deque[tuple[int, int]] = deque()  # from freed tensors; any thread may add to it
        pages = -(-capacity // mmap.PAGESIZE) * mmap.PAGESIZE
        try:
            self._map = reserve_pages(pages)
        except (OSError, OverflowError):  # not enough address space
            return
        self._memory = np.frombuffer(self._map, np.uint8)
        self._free.append((0, pages))

    def empty(self, *shape: int, like: Tensor) -> Tensor:
        """Return an uninitialized tensor of ``like``'s type and device; its memory returns when the tensor is freed.

        PyTorch allocates it as usual if it has less than :data:`LEAST` bytes, is not on a CPU or does not fit.
        """
        size = math.prod(shape) * like.element_size()
        place = self._take(size) if like.device.type == "cpu" and size >= LEAST else None
        if place is None:
            return like.new_empty(shape)
        lent = self._memory[place[0] : place[0] + size]  # lives as long as any tensor with this memory
        weakref.finalize(lent, self._returned.append, place).atexit = False
        storage = torch.from_numpy(lent).untyped_storage()
        return like.new_empty(0).set_(storage, 0, shape)  # not a view: autograd forbids some in-place changes of views

    def give_back(self) -> None:
        """Return the free pages to the system, because something else needs memory for a while."""
        self._collect()
        for start, end in self._free:
            return_pages(self._map, start, end)

    def _take(self, size: int) -> tuple[int, int] | None:
        self._collect()
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        holes = ((end - start, index) for index, (start, end) in enumerate(self._free) if end - start >= size)
        length, index = min(holes, default=(0, 0))
        if not length:
            return None
        start, end = self._free[index]
        self._free[index : index + 1] = [(start + size, end)] if length > size else []
        return start, start + size

    def _collect(self) -> None:
        while self._returned:
            self._put_back(*self._returned.popleft())

    def _put_back(self, start: int, end: int) -> None:
        index = bisect.bisect(self._free, (start, end))
        if index < len(self._free) and self._free[index][0] == end:
            end = self._free.pop(index)[1]
        if index and self._free[index - 1][1] == start:
            index -= 1
            start = self._free.pop(index)[0]
        self._free.insert(index, (start, end))
