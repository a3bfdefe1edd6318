"""Kept prompts: the keys and values of earlier requests, so that a text that begins like them is not computed again.

What an engine computes for a token depends only on the tokens up to it. So a request may continue a copy of a kept
sequence from any place where the two texts still agree, and draws the same tokens, bit for bit. The least recently used
texts are dropped first. Each client finds only its own, so response times reveal nothing of what others asked. This
module knows nothing of requests, batches or text.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from itertools import count, islice
from threading import Lock, Timer
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from weakref import ref

from gpt2lab.engines.forks import LockedCore, let_fork
from gpt2lab.generation.sequences import Begun, Sequences
from gpt2lab.system.memory import available_memory

if TYPE_CHECKING:
    from gpt2lab.engines.protocol import Engine

IDLE_SECONDS = 600.0
"""A text is dropped if no request has begun like it for this time."""

MEMORY_SHARE = 4
"""Kept keys and values take at most 1/MEMORY_SHARE of the memory that would be available without them."""

T = TypeVar("T")
_Text = tuple[int, ...]


class _Entry(NamedTuple):
    sequence: int
    blocks: tuple[int, ...]
    """Numbers of the blocks that hold its keys and values."""
    used: float


class KeptPrompts(Sequences):
    """The sequences of ``engine``, of which up to ``n_bytes`` are kept when they end. Several threads may share them.

    ``clock`` returns the time in seconds.
    """

    def __init__(self, engine: Engine, n_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(engine)
        self._n_bytes = n_bytes
        self._clock = clock
        self._entries: OrderedDict[tuple[Hashable, _Text], _Entry] = OrderedDict()  # least recently used first
        self._texts: dict[Hashable, list[_Text]] = {}  # those of each client, sorted; none begins with another
        self._numbers = count()
        self._blocks: dict[int, list[int]] = {}  # sequence of a caller -> numbers of its first blocks
        self._references: Counter[int] = Counter()  # number of entries per block
        self._lock = Lock()
        self._timer: Timer | None = None
        let_fork(self, LockedCore(self._lock))

    @property
    def held_bytes(self) -> int:
        """Bytes of keys and values that are kept; blocks that several texts share count once."""
        return len(self._references) * self._block_bytes

    def begin(self, tokens: Sequence[int], client: Hashable = None) -> Begun:
        """Return a new sequence that holds the longest kept prefix of ``tokens``."""
        with self._lock:
            known, text = self._longest(tuple(tokens), client)
            if known:
                return Begun(self._continued(self._used(client, text), known), known)
        return super().begin(tokens, client)

    def fork(self, sequence: int, n_tokens: int) -> int:
        """Return a copy of a sequence that holds ``n_tokens``."""
        with self._lock:
            blocks = self._full_blocks(sequence, n_tokens)
            fork = self._engine.fork_sequence(sequence)
            self._blocks[fork] = list(blocks)
            return fork

    def share(self, sequence: int, tokens: Sequence[int], client: Hashable = None) -> None:
        """Keep a copy of a sequence that begins with ``tokens``."""
        if not self._covered(tuple(tokens), client):
            self.end(self.fork(sequence, len(tokens)), tokens, client)

    def end(self, sequence: int, tokens: Sequence[int], client: Hashable = None) -> None:
        """Keep a sequence that begins with ``tokens``, or free it."""
        if not tokens:
            return self.free(sequence)
        text = tuple(tokens)
        with self._lock:
            if longer := self._covered(text, client):
                self._used(client, longer)
                self.free(sequence)
            else:
                self._engine.truncate_sequence(sequence, len(tokens))
                self._add(sequence, text, client)
                memory = self._engine.device_memory
                room = ((available_memory() if memory is None else memory) + self.held_bytes) // MEMORY_SHARE
                self._shrink(min(self._n_bytes, room))
                self._watch()

    def free(self, sequence: int) -> None:
        """Free a caller's sequence."""
        self._blocks.pop(sequence, None)
        super().free(sequence)

    def clear(self) -> bool:
        """Drop everything and return its memory to the system; return whether there was anything."""
        with self._lock:
            kept = bool(self._entries)
            self._shrink(-1)
        if kept:
            self._engine.release_memory()
        return kept

    def expire(self) -> None:
        """Drop texts that have not been used for :data:`IDLE_SECONDS`; return their memory to the system."""
        with self._lock:
            before = len(self._entries)
            while self._entries and self._oldest().used + IDLE_SECONDS <= self._clock():
                self._drop(next(iter(self._entries)))
            dropped = len(self._entries) < before
            self._timer = None
            self._watch()
        if dropped:
            self._engine.release_memory()

    def relieved(self, call: Callable[[], T]) -> T:
        """Return ``call()``; if memory does not suffice for it, drop everything and call it once more."""
        try:
            return call()
        except MemoryError:
            if not self.clear():
                raise
        return call()

    # ---- texts ------------------------------------------------------------------------------------------------------

    def _near(self, text: _Text, client: Hashable) -> list[_Text]:
        """Return the neighbours of ``text`` in the sorted texts of ``client``: no other has a longer common prefix."""
        texts = self._texts.get(client, [])
        place = bisect_left(texts, text)
        return texts[max(0, place - 1) : place + 1]

    def _longest(self, text: _Text, client: Hashable) -> tuple[int, _Text]:
        """Return the length of the longest kept prefix of ``text``, and a kept text that begins with it."""
        return max(((n_common(near, text), near) for near in self._near(text, client)), default=(0, ()))

    def _covered(self, text: _Text, client: Hashable) -> _Text | None:
        """Return the kept text that begins with ``text``, if there is one."""
        return next((near for near in self._near(text, client) if near[: len(text)] == text), None)

    # ---- entries ----------------------------------------------------------------------------------------------------
    # Ctrl-C may interrupt these functions anywhere. So a text is listed last and unlisted first: at worst it is dropped
    # later.

    def _used(self, client: Hashable, text: _Text) -> _Entry:
        """Return an entry, and note that it has been used."""
        entry = self._entries[client, text] = self._entries[client, text]._replace(used=self._clock())
        self._entries.move_to_end((client, text))
        return entry

    def _add(self, sequence: int, text: _Text, client: Hashable) -> None:
        """Keep a sequence that holds ``text``, in place of the text that it continues."""
        if (client, text) in self._entries:  # kept, but not listed: Ctrl-C came between
            self._drop((client, text))
        blocks = self._full_blocks(sequence, len(text))
        blocks += tuple(islice(self._numbers, -(-len(text) // self._block_tokens) - len(blocks)))
        self._blocks.pop(sequence, None)
        self._entries[client, text] = _Entry(sequence, blocks, self._clock())
        self._references.update(blocks)
        for near in self._near(text, client):
            if near == text[: len(near)]:
                self._drop((client, near))
        texts = self._texts.setdefault(client, [])
        texts.insert(bisect_left(texts, text), text)

    def _drop(self, key: tuple[Hashable, _Text]) -> None:
        client, text = key
        texts = self._texts.get(client, [])
        place = bisect_left(texts, text)
        if texts[place : place + 1] == [text]:
            del texts[place]
        if not texts:
            self._texts.pop(client, None)
        entry = self._entries.pop(key)
        self._engine.free_sequence(entry.sequence)
        self._references.subtract(entry.blocks)
        for block in entry.blocks:
            if self._references[block] <= 0:
                del self._references[block]

    def _oldest(self) -> _Entry:
        return next(iter(self._entries.values()))

    def _shrink(self, n_bytes: int) -> None:
        """Drop the least recently used entries until at most ``n_bytes`` are left."""
        while self._entries and self.held_bytes > n_bytes:
            self._drop(next(iter(self._entries)))

    def _watch(self) -> None:
        """Have :meth:`expire` called when the oldest entry is due."""
        if not self._entries or (self._timer and self._timer.is_alive()):
            return
        self._timer = Timer(self._oldest().used + IDLE_SECONDS - self._clock(), _expire, [ref(self)])
        self._timer.daemon = True
        with suppress(RuntimeError):  # no thread starts while the interpreter ends
            self._timer.start()

    # ---- blocks -----------------------------------------------------------------------------------------------------

    @property
    def _block_tokens(self) -> int:
        return self._engine.kv_block_tokens or 1

    @property
    def _block_bytes(self) -> int:
        return self._engine.kv_cache_bytes_per_token * self._block_tokens

    def _continued(self, entry: _Entry, known: int) -> int:
        """Return a copy of the first ``known`` tokens of an entry."""
        sequence = self._engine.fork_sequence(entry.sequence)
        self._engine.truncate_sequence(sequence, known)
        if self._engine.kv_block_tokens:
            self._blocks[sequence] = list(entry.blocks[: known // self._engine.kv_block_tokens])
        return sequence

    def _full_blocks(self, sequence: int, n_tokens: int) -> tuple[int, ...]:
        """Return the numbers of the blocks that the first ``n_tokens`` of a caller's sequence fill.

        They are what its forks share. A block that is not full is copied before a fork writes to it.
        """
        if not self._engine.kv_block_tokens:
            return ()
        full = n_tokens // self._engine.kv_block_tokens
        blocks = self._blocks.setdefault(sequence, [])
        blocks += islice(self._numbers, max(0, full - len(blocks)))
        return tuple(blocks[:full])


def n_common(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the length of the common prefix of two tuples or two lists."""
    return bisect_left(range(1, min(len(a), len(b)) + 1), True, key=lambda n: a[:n] != b[:n])


def _expire(kept: ref[KeptPrompts]) -> None:
    """Call :meth:`KeptPrompts.expire`, unless its model is gone."""
    if (prompts := kept()) is not None:
        prompts.expire()
