"""Memory for large tensors that come and go in every update. Knows nothing of what is in them."""

from __future__ import annotations

import bisect
import math
import mmap
import sys
import weakref
from collections import deque

import numpy as np
import torch
from torch import Tensor

LEAST = 1 << 20  # bytes; what is smaller is left to PyTorch
_NORESERVE = 0x4000 if sys.platform == "linux" else 0  # mmap.MAP_NORESERVE of later Pythons


class Pool:
    """A piece of memory on a CPU, cut up for tensors and put together again, whose pages stay with the process.

    A system's allocator either gives large blocks back at once, and each new one costs page faults, or keeps them and
    leaves holes that nothing fits. Here a tensor gets the smallest hole that it fits into: gradients come to lie
    where activations were. Of ``capacity`` bytes only those count that have once been used. Tensors may go in any
    thread, but one thread at a time may ask for some.
    """

    def __init__(self, capacity: int) -> None:
        self._free: list[tuple[int, int]] = []  # from, to; ascending, and something lies between any two
        self._returned: deque[tuple[int, int]] = deque()  # by tensors that are gone; any thread may add to it
        pages = -(-capacity // mmap.PAGESIZE) * mmap.PAGESIZE
        try:
            self._map = mmap.mmap(-1, pages, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)
        except (OSError, OverflowError):  # so much address space is not to be had
            return
        self._memory = np.frombuffer(self._map, np.uint8)
        self._free.append((0, pages))

    def empty(self, *shape: int, like: Tensor) -> Tensor:
        """A tensor of ``like``'s type and device, with anything in it; its memory comes back when it is gone.

        PyTorch makes it as ever if it has less than :data:`LEAST` bytes, is not on a CPU or does not fit.
        """
        size = math.prod(shape) * like.element_size()
        place = self._take(size) if like.device.type == "cpu" and size >= LEAST else None
        if place is None:
            return like.new_empty(shape)
        lent = self._memory[place[0] : place[0] + size]  # an object that lives as long as any tensor with this memory
        weakref.finalize(lent, self._returned.append, place).atexit = False
        storage = torch.from_numpy(lent).untyped_storage()
        return like.new_empty(0).set_(storage, 0, shape)  # not a view, which may not be changed in place everywhere

    def give_back(self) -> None:
        """Give the pages of what nobody has back to the system, if something else needs memory for a while."""
        self._collect()
        if hasattr(mmap, "MADV_DONTNEED"):
            for start, end in self._free:
                self._map.madvise(mmap.MADV_DONTNEED, start, end - start)

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
