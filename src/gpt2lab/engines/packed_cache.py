"""A disk cache of packed weights, which later engines read straight into their memory.

An entry is a file of one header and one arena. Its name identifies everything it depends on: the contents of the
checkpoint's files, the version of their readers, shape, precision and the core's layout. Entries are written under
another name and renamed, so several processes need no lock and a kill leaves no half entry. A damaged entry counts as
absent. This module only reads, as most starts do; :mod:`gpt2lab.engines.packed_entries` writes, lists and removes
entries. It knows no tensors and no engine: :mod:`gpt2lab.engines.loading` packs the weights,
:mod:`gpt2lab.engines.digests` identifies the contents of files.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from gpt2lab import _native
from gpt2lab.system import caches

MAGIC = b"gpt2lab packed 2\n"
HEADER = 4096  # bytes; the arena after it starts on a page
SUFFIX = ".packed"


class Key(NamedTuple):
    """Everything that determines an arena of weights."""

    digest: str
    """Digest of the contents of the checkpoint's files, in hexadecimal."""
    precision: str
    layout: int
    """``_native.PACKED_LAYOUT``."""
    readers: int
    """``gpt2lab.weights.checkpoint.READERS``."""
    shape: dict[str, int]

    @property
    def name(self) -> str:
        """The entry's file name."""
        shape = "-".join(map(str, self.shape.values()))
        return f"{self.digest[:32]}-{self.precision}-{self.layout}.{self.readers}-{shape}{SUFFIX}"


def default_folder() -> Path | None:
    """Return the folder for packed weights, None if the cache is off."""
    return caches.cache_folder("packed")


def read_entry(folder: Path, key: Key, arena: memoryview) -> bool:
    """Fill ``arena`` with the entry of ``key``. Returns False, with ``arena`` undefined, if there is no intact one."""
    path = folder / key.name
    try:
        with path.open("rb", buffering=0) as file:
            header = read_header(file)
            if header is None or header["key"] != key._asdict() or header["size"] != len(arena):
                return False
            if not is_whole(file, header):
                return False
            sums = _read_arena(path, arena)
        with suppress(OSError):  # another user's cache, which is read-only
            os.utime(path)
    except OSError:
        return False
    return bool(combined(sums) == header["checksum"])


def has_entry(folder: Path, key: Key) -> bool:
    """Return whether there is an entry of ``key`` that looks intact; only :func:`read_entry` checks its bytes."""
    try:
        with (folder / key.name).open("rb", buffering=0) as file:
            header = read_header(file)
            return header is not None and header["key"] == key._asdict() and is_whole(file, header)
    except OSError:
        return False


def read_header(file: IO[bytes]) -> dict[str, Any] | None:
    """Return the header that ``file`` starts with, None if it has no valid one."""
    data = file.read(HEADER)
    if len(data) < HEADER or not data.startswith(MAGIC):
        return None
    try:
        header = json.loads(data[len(MAGIC) :])
        header["key"]["precision"] + "", header["checksum"], header["model"] + "", header["size"] + 0
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return header  # type: ignore[no-any-return]


def is_whole(file: IO[bytes], header: dict[str, Any]) -> bool:
    """Return whether ``file`` is as long as its header says."""
    return bool(os.fstat(file.fileno()).st_size == HEADER + header["size"])


def halves(arena: memoryview) -> list[memoryview]:
    """Return the two parts of ``arena`` that are summed at the same time."""
    middle = len(arena) // 2 // HEADER * HEADER
    return [arena[:middle], arena[middle:]]


def combined(sums: Iterable[int]) -> int:
    """Return one checksum of the halves' checksums."""
    return _native.checksum(b"".join(each.to_bytes(8, sys.byteorder) for each in sums))


def _read_arena(path: Path, arena: memoryview) -> list[int]:
    """Fill ``arena`` from its place in the entry with two threads, and return the checksums of its halves.

    Each half is one call without the interpreter's lock, so it does not wait for other threads in between.
    """
    sums = [0, 0]

    def work(number: int, start: int, half: memoryview) -> None:
        with suppress(OSError), path.open("rb", buffering=0) as file:
            file.seek(start)
            rest = half
            while len(rest) and (count := file.readinto(rest)):  # Linux reads at most 2 GiB at once
                rest = rest[count:]
            sums[number] = _native.checksum(half)

    first, second = halves(arena)
    thread = threading.Thread(target=work, args=(1, HEADER + len(first), second))
    thread.start()
    work(0, HEADER, first)
    thread.join()
    return sums
