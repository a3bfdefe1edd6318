"""Entries in the cache of packed weights: writing, listing and removing them.

:mod:`gpt2lab.engines.packed_cache` describes and reads them; most starts need no more.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from gpt2lab import _native
from gpt2lab.engines import digests
from gpt2lab.engines.packed_cache import (
    HEADER,
    MAGIC,
    SUFFIX,
    Key,
    combined,
    default_folder,
    halves,
    is_whole,
    read_header,
)
from gpt2lab.system import caches
from gpt2lab.system.atomic import PARTIAL, new_file
from gpt2lab.system.marks import Deleted, delete, is_plain

SIZE_LIMIT = 16 << 30
"""The most bytes of all entries; above it, the longest unused ones are removed."""

ABANDONED = 15 * 60.0
"""Seconds without growth after which a temporary file counts as abandoned by its writer."""

_MODEL = 250  # characters of a path that fit into the header however they are escaped
_ENTRY = r"[0-9a-f]{32}-[a-z0-9_]+-\d+\.\d+-[\d-]*" + re.escape(SUFFIX)  # see Key.name


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


def write_entry(folder: Path, key: Key, arena: memoryview, model: str) -> None:
    """Write ``arena`` as the entry of ``key``; remove entries it supersedes. Raises OSError; leaves no half file."""
    checksum = combined(map(_native.checksum, halves(arena)))
    model = model[-_MODEL:]
    header = {"key": key._asdict(), "size": len(arena), "checksum": checksum, "model": model}
    with new_file(folder / key.name, sync=True) as file:
        file.write((MAGIC + json.dumps(header).encode()).ljust(HEADER))
        file.write(arena)
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
                header = read_header(file)
                whole = header is not None and is_whole(file, header)
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
