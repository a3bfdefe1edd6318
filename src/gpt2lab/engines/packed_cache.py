"""A disk cache of packed weights, which later engines read straight into their memory.

An entry is a file of one header and one arena. Its name identifies everything it depends on: the contents of the
checkpoint's files, the version of their readers, shape, precision and the core's layout. Entries are written under
another name and renamed, so several processes need no lock and a kill leaves no half entry. A damaged entry counts as
absent. This module knows no tensors and no engine: :mod:`gpt2lab.engines.loading` packs the weights,
:mod:`gpt2lab.engines.digests` identifies the contents of files.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpt2lab import _native
from gpt2lab.engines import digests
from gpt2lab.system import caches
from gpt2lab.system.atomic import PARTIAL, new_file
from gpt2lab.system.marks import Deleted, delete, is_plain

Arena = npt.NDArray[np.uint8]

SIZE_LIMIT = 16 << 30
"""The most bytes of all entries; above it, the longest unused ones are removed."""

ABANDONED = 15 * 60.0
"""Seconds without growth after which a temporary file counts as abandoned by its writer."""

_MAGIC = b"gpt2lab packed 2\n"
_HEADER = 4096  # bytes; the arena after it starts on a page
_MODEL = 250  # characters of a path that fit into the header however they are escaped
_SUFFIX = ".packed"
_ENTRY = r"[0-9a-f]{32}-[a-z0-9_]+-\d+\.\d+-[\d-]*" + re.escape(_SUFFIX)  # see Key.name


@dataclass(frozen=True)
class Key:
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
        return f"{self.digest[:32]}-{self.precision}-{self.layout}.{self.readers}-{shape}{_SUFFIX}"


class Entry(NamedTuple):
    """One file of the cache, as ``gpt2lab cache`` lists it."""

    path: Path
    model: str
    """The checkpoint's path when it was packed; empty if the file cannot be read as an entry."""
    precision: str
    size: int
    """Bytes on disk."""
    used: float
    """Time of the last read or write, in seconds since 1970."""
    whole: bool
    """Whether it is as long as its header says; only reading it shows whether every byte is right."""


def default_folder() -> Path | None:
    """Return the folder for packed weights, None if the cache is off."""
    return caches.cache_folder("packed")


def obstacle() -> str | None:
    """Return why nothing can be cached, in a few words; None if no obstacle is known."""
    folder = default_folder()
    if folder is None:
        chosen = os.environ.get(caches.VARIABLE)
        return f"{caches.VARIABLE} is {chosen}" if chosen else "no home folder is known"
    for path in (folder, *folder.parents):
        if os.path.exists(path) and not os.path.isdir(path):  # noqa: PTH110, PTH112 (pathlib's raise errors that these ignore)
            return f"{path} is not a folder"
    return None


def read_entry(folder: Path, key: Key, arena: Arena) -> bool:
    """Fill ``arena`` with the entry of ``key``. Returns False, with ``arena`` undefined, if there is no intact one."""
    path = folder / key.name
    try:
        with path.open("rb", buffering=0) as file:
            header = _read_header(file)
            if header is None or header["key"] != asdict(key) or header["size"] != len(arena):
                return False
            if not _is_whole(file, header):
                return False
            sums = _read_arena(path, arena)
        with suppress(OSError):  # another user's cache, which is read-only
            os.utime(path)
    except OSError:
        return False
    return bool(_total(sums) == header["checksum"])


def has_entry(folder: Path, key: Key) -> bool:
    """Return whether there is an entry of ``key`` that looks intact; only :func:`read_entry` checks its bytes."""
    try:
        with (folder / key.name).open("rb", buffering=0) as file:
            header = _read_header(file)
            return header is not None and header["key"] == asdict(key) and _is_whole(file, header)
    except OSError:
        return False


def write_entry(folder: Path, key: Key, arena: Arena, model: str) -> None:
    """Write ``arena`` as the entry of ``key``; remove entries it supersedes. Raises OSError; leaves no half file."""
    checksum = _total(map(_native.checksum, _halves(arena)))
    model = model[-_MODEL:]
    header = {"key": asdict(key), "size": len(arena), "checksum": checksum, "model": model}
    with new_file(folder / key.name, sync=True) as file:
        file.write((_MAGIC + json.dumps(header).encode()).ljust(_HEADER))
        file.write(arena.data)
    with suppress(OSError):
        _make_room(folder, key, model)


def entries(folder: Path) -> list[Entry]:
    """Return all entries, the last used first."""
    found = []
    for path in _plain_files(folder):
        if not re.fullmatch(_ENTRY, path.name):
            continue
        with suppress(OSError):  # removed meanwhile
            status = path.stat()
            with path.open("rb") as file:
                header = _read_header(file)
                whole = header is not None and _is_whole(file, header)
            model, precision = (header["model"], header["key"]["precision"]) if header else ("", "")
            found.append(Entry(path, model, precision, status.st_size, status.st_mtime, whole))
    return sorted(found, key=lambda entry: -entry.used)


def clear(folder: Path) -> list[Deleted]:
    """Delete the whole cache, with half-written files, but no file of another origin. Engines in use keep running."""
    names = [path.name for path in _plain_files(folder)]
    return delete(
        folder,
        [name for name in names if re.fullmatch(_ENTRY, name) or name.endswith(PARTIAL) or digests.is_record(name)],
    )


def _plain_files(folder: Path) -> list[Path]:
    """Return the files in ``folder`` that are no links; none if it does not exist."""
    try:
        return [path for path in folder.iterdir() if is_plain(path)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _make_room(folder: Path, key: Key, model: str) -> None:
    """Remove abandoned files, older versions of the same model, and the longest unused entries beyond the limit."""
    for path in _plain_files(folder):
        with suppress(FileNotFoundError):
            if path.name.endswith(PARTIAL) and time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()
    total = 0
    for entry in entries(folder):
        total += entry.size
        replaced = (entry.model, entry.precision) == (model, key.precision)
        if entry.path.name != key.name and (replaced or total > SIZE_LIMIT):
            entry.path.unlink(missing_ok=True)
            total -= entry.size


def _read_header(file: IO[bytes]) -> dict[str, Any] | None:
    """Return the header that ``file`` starts with, None if it has no valid one."""
    data = file.read(_HEADER)
    if len(data) < _HEADER or not data.startswith(_MAGIC):
        return None
    try:
        header = json.loads(data[len(_MAGIC) :])
        header["key"]["precision"] + "", header["checksum"], header["model"] + "", header["size"] + 0
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return header  # type: ignore[no-any-return]


def _is_whole(file: IO[bytes], header: dict[str, Any]) -> bool:
    return bool(os.fstat(file.fileno()).st_size == _HEADER + header["size"])


def _halves(arena: Arena) -> list[Arena]:
    middle = len(arena) // 2 // _HEADER * _HEADER
    return [arena[:middle], arena[middle:]]


def _total(sums: Iterable[int]) -> int:
    """Return one checksum of the halves' checksums."""
    return _native.checksum(np.fromiter(sums, np.uint64).view(np.uint8))


def _read_arena(path: Path, arena: Arena) -> list[int]:
    """Fill ``arena`` from its place in the entry with two threads, and return the checksums of its halves.

    Each half is one call without the interpreter's lock, so it does not wait for other threads in between.
    """
    sums = [0, 0]

    def work(number: int, start: int, half: Arena) -> None:
        with suppress(OSError), path.open("rb", buffering=0) as file:
            file.seek(start)
            rest = half.data
            while len(rest) and (count := file.readinto(rest)):  # Linux reads at most 2 GiB at once
                rest = rest[count:]
            sums[number] = _native.checksum(half)

    first, second = _halves(arena)
    thread = threading.Thread(target=work, args=(1, _HEADER + len(first), second))
    thread.start()
    work(0, _HEADER, first)
    thread.join()
    return sums
