"""One digest of the contents of a checkpoint's files, without reading hundreds of megabytes at every start.

A small record holds the digest of files seen before, with their paths, sizes, times and inodes; if any of these
differs, the files are read again. A file that has only just changed may change once more without a change of its
times, so its times are not trusted. This module knows nothing of the files' format or the digest's purpose.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from gpt2lab.system.cores import logical_cores

SETTLED = 2.0
"""Seconds that a file must be unchanged for: the coarsest step of a file system's clock."""

_CHUNK = 1 << 20
_PIECE = 64 << 20  # bytes that a thread hashes at a time
_RECORD = r"[0-9a-f]{32}\.json"

Stamp = list[tuple[str, int, int, int, int]]
"""Absolute path, size, mtime, ctime (nanoseconds) and inode of every file."""


def stamp(files: Sequence[Path]) -> Stamp:
    """Return the stamp of ``files``, which differs once they change. Raises OSError."""
    return [
        (str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        for path in map(Path.absolute, files)
        for status in [path.stat()]
    ]


def settled(of: Stamp) -> bool:
    """Return whether the files have been unchanged for long enough to trust their times."""
    return all(time.time_ns() - max(mtime, ctime) > SETTLED * 1e9 for _, _, mtime, ctime, _ in of)


def recorded_digest(folder: Path, of: Stamp) -> str | None:
    """Return the recorded digest of files with this stamp, None if there is none."""
    try:
        record = json.loads(_record(folder, of).read_bytes())
        found = [tuple(file) for file in record["stamp"]] == of and re.fullmatch("[0-9a-f]+", record["digest"])
        return found[0] if found else None
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return None


def record_digest(folder: Path, of: Stamp, digest: str) -> None:
    """Record the digest of files with this stamp, and remove records of files that are gone. Raises OSError."""
    from gpt2lab.system.atomic import write_file  # imported only here: most starts find a record
    from gpt2lab.system.marks import is_plain

    write_file(_record(folder, of), json.dumps({"digest": digest, "stamp": of}).encode(), sync=True)
    for path in folder.iterdir():
        if not is_record(path.name) or not is_plain(path):
            continue
        with suppress(OSError, ValueError, TypeError, LookupError, RecursionError):
            if not all(os.path.exists(name) for name, *_ in json.loads(path.read_bytes())["stamp"]):  # noqa: PTH110
                path.unlink()


def is_record(name: str) -> bool:
    """Return whether a file's name is that of a record."""
    return re.fullmatch(_RECORD, name) is not None


def content_digest(files: Sequence[Path]) -> str:
    """Return the hex SHA-256 of the sizes of ``files`` and the SHA-256 of each 64 MB of them. Raises OSError."""
    from concurrent.futures import ThreadPoolExecutor

    sizes = [path.stat().st_size for path in files]
    digest = hashlib.sha256(json.dumps(sizes).encode())
    pieces = [(path, start) for path, size in zip(files, sizes, strict=True) for start in range(0, size, _PIECE)]
    with ThreadPoolExecutor(logical_cores()) as threads:
        for piece in threads.map(_digest_of_piece, pieces):
            digest.update(piece)
    return digest.hexdigest()


def _digest_of_piece(piece: tuple[Path, int]) -> bytes:
    path, start = piece
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        for _ in range(_PIECE // _CHUNK):
            digest.update(buffer[: file.readinto(buffer)])
    return digest.digest()


def _record(folder: Path, of: Stamp) -> Path:
    paths = "\0".join(file[0] for file in of)
    return folder / (hashlib.sha256(os.fsencode(paths)).hexdigest()[:32] + ".json")
