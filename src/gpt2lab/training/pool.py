"""Memory for large tensors that come and go in the same few sizes. Knows nothing of what is in them."""

from __future__ import annotations

import math
import threading
import weakref

import numpy as np
import torch
from torch import Tensor

LEAST = 1 << 20  # bytes; what is smaller is left to PyTorch


class Pool:
    """Keeps the memory of tensors on a CPU that are gone for the next ones of their size.

    A system's allocator either gives large blocks back at once, and each new one costs page faults, or keeps them and
    cuts them up. This pool suits what is the same in every update. Asked for a size that it has none left of, it gives
    all that is free back first: a smaller batch does not come on top of a larger one.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[np.ndarray]] = {}

    def empty(self, *shape: int, like: Tensor) -> Tensor:
        """A tensor of ``like``'s type and device, with anything in it; its memory comes back when it is gone."""
        size = math.prod(shape) * like.element_size()
        if like.device.type != "cpu" or size < LEAST:
            return like.new_empty(shape)
        free = self._free.setdefault(size, [])
        if not free:
            for others in self._free.values():
                others.clear()
        memory = free.pop() if free else torch.empty(size, dtype=torch.uint8, device="cpu").numpy()
        lent = memory[:]  # an object of its own, which lives as long as any tensor that has this memory
        weakref.finalize(lent, free.append, memory).atexit = False
        storage = torch.from_numpy(lent).untyped_storage()
        return like.new_empty(0).set_(storage, 0, shape)  # not a view, which may not be changed in place everywhere


def empty(*shape: int, like: Tensor, pool: Pool | None) -> Tensor:
    """As :meth:`Pool.empty`, or without a pool as PyTorch makes it."""
    return like.new_empty(shape) if pool is None else pool.empty(*shape, like=like)


class _Scratch(threading.local):
    """Memory that is used again and again for what does not outlive a call, or the next taking; one for each thread."""

    def __init__(self) -> None:
        self._memory: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def take(self, rows: int, columns: int, like: Tensor) -> Tensor:
        """``[rows, columns]`` of ``like``'s type and device, with anything in it, where the last one was."""
        key, size = (like.dtype, like.device), rows * columns
        memory = self._memory.get(key)
        if memory is None or memory.numel() < size:
            self._memory.pop(key, None)
            memory = self._memory[key] = torch.empty(size, dtype=like.dtype, device=like.device)
        return memory[:size].view(rows, columns)


SCRATCH = _Scratch()
