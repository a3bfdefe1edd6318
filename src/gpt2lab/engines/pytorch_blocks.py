"""The keys and values of sequences on a device, in blocks that forks share until one of them grows.

Two blocks belong to no sequence: one whose zeros are read in place of what a row must not see, and one for rows that
only pad a pass. This module knows nothing of layers' arithmetic; its caller keeps other threads out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gpt2lab.errors import UsageError, first_line

if TYPE_CHECKING:
    from gpt2lab.config import ModelConfig

BLOCK = 32
"""Tokens in a block."""

ZEROS, SCRAP = 0, 1
"""The block that is always zero, and the one where rows that pad a pass are written."""

_FIRST = 64  # blocks to begin with


@dataclass
class _Held:
    """What a sequence holds: its number of tokens, and its blocks in their order."""

    length: int = 0
    blocks: list[int] = field(default_factory=list)


class Blocks:
    """The keys and values of all sequences of a model, in ``dtype`` on ``device``.

    Attributes:
        cache: ``[n_layer, 2, n_blocks, BLOCK, n_embd]``, keys before values, heads side by side. It is replaced when
            more blocks are needed.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> None:
        self._config = config
        self._handles = count()
        self._held: dict[int, _Held] = {}
        self._users = [1, 1]  # of each block
        self._free: list[int] = []
        self.cache = torch.zeros((config.n_layer, 2, 2, BLOCK, config.n_embd), dtype=dtype, device=device)

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token's keys and values."""
        return 2 * self._config.n_layer * self._config.n_embd * int(self.cache.element_size())

    @property
    def n_in_use(self) -> int:
        """The number of blocks that sequences hold; shared ones count once."""
        return len(self._users) - len(self._free) - 2

    def new(self) -> int:
        """Return the handle of an empty sequence."""
        return self._hold(_Held())

    def fork(self, sequence: int) -> int:
        """Return the handle of a copy of a sequence, which shares its blocks."""
        held = self.held(sequence)
        for block in held.blocks:
            self._users[block] += 1
        return self._hold(_Held(held.length, [*held.blocks]))

    def free(self, sequence: int) -> None:
        """Free a sequence, if it exists."""
        for block in self._held.pop(sequence, _Held()).blocks:
            self._drop(block)

    def held(self, sequence: int) -> _Held:
        """Return what a sequence holds. Raises :class:`~gpt2lab.errors.UsageError` if there is none."""
        if sequence not in self._held:
            raise UsageError(f"there is no sequence {sequence}")
        return self._held[sequence]

    def truncate(self, sequence: int, length: int) -> None:
        """Forget all but the first ``length`` tokens of a sequence, and blocks that were reserved for more."""
        held = self.held(sequence)
        held.length = min(held.length, length)
        while len(held.blocks) > math.ceil(held.length / BLOCK):
            self._drop(held.blocks.pop())

    def reserve(self, wanted: dict[int, int]) -> None:
        """Give each sequence blocks of its own for its next tokens, up to ``wanted[sequence]`` tokens in all.

        Raises MemoryError if the device has no room for them.
        """
        for sequence, length in wanted.items():
            held = self._held[sequence]
            missing = math.ceil(length / BLOCK) - len(held.blocks)
            shared = held.length % BLOCK != 0 and self._users[held.blocks[-1]] > 1
            self._make_room(missing + shared)
            if shared:
                copy, old = self._take(), held.blocks[-1]
                self.cache[:, :, copy] = self.cache[:, :, old]
                held.blocks[-1] = copy
                self._drop(old)
            held.blocks += [self._take() for _ in range(missing)]

    def table(self, sequences: Sequence[int], n_blocks: int) -> list[list[int]]:
        """Return the first ``n_blocks`` blocks of each sequence, padded with :data:`ZEROS`."""
        rows = [self._held[sequence].blocks[:n_blocks] for sequence in sequences]
        return [row + [ZEROS] * (n_blocks - len(row)) for row in rows]

    def read(self, sequence: int) -> Tensor:
        """Return the keys and values of a sequence, ``[n_layer, 2, n_head, n_tokens, head_dim]``."""
        held, config = self.held(sequence), self._config
        found = self.cache[:, :, held.blocks].flatten(2, 3)[:, :, : held.length]  # [n_layer, 2, n_tokens, n_embd]
        return found.unflatten(-1, (config.n_head, config.head_dim)).transpose(2, 3)

    def write(self, values: Tensor) -> int:
        """Return the handle of a new sequence with these keys and values, of the shape that :meth:`read` returns."""
        rows = values.to(self.cache).transpose(2, 3).flatten(3)  # [n_layer, 2, n_tokens, n_embd]
        sequence, length = self.new(), values.shape[3]
        try:
            self.reserve({sequence: length})
        except BaseException:
            self.free(sequence)
            raise
        held = self._held[sequence]
        for place, block in enumerate(held.blocks):
            part = rows[:, :, place * BLOCK : (place + 1) * BLOCK]
            self.cache[:, :, block, : part.shape[2]] = part
        held.length = length
        return sequence

    def shrink(self) -> None:
        """Give back the blocks after the last one in use, except for the first few, which the next text will need."""
        n = len(self._users)
        while n > _FIRST + 2 and not self._users[n - 1]:
            n -= 1
        if n < len(self._users):
            self.cache = self.cache[:, :, :n].clone()
            self._users = self._users[:n]
            self._free = [block for block in self._free if block < n]

    def _hold(self, held: _Held) -> int:
        handle = next(self._handles)
        self._held[handle] = held
        return handle

    def _make_room(self, n: int) -> None:
        """Have at least ``n`` free blocks."""
        there = len(self._users)
        if n <= len(self._free):
            return
        more = max(n, there, _FIRST)
        try:
            room = self.cache.new_zeros((*self.cache.shape[:2], there + more, *self.cache.shape[3:]))
        except RuntimeError as error:  # how PyTorch reports a lack of memory, on every device
            raise MemoryError(f"no room for {there + more} blocks of keys and values: {first_line(error)}") from None
        room[:, :, :there] = self.cache
        self.cache = room
        self._users += [0] * more
        self._free += reversed(range(there, there + more))

    def _take(self) -> int:
        block = self._free.pop()
        self._users[block] = 1
        return block

    def _drop(self, block: int) -> None:
        self._users[block] -= 1
        if not self._users[block]:
            self._free.append(block)
