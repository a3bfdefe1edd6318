"""Files read while a training run writes them: appended lines, and samples.

A file may be half-written, replaced, cut short or removed between two looks; none of that is an error. This module
knows nothing of the lines' meaning.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1 << 20
"""The most bytes read at once; a longer line is skipped."""
_MARK = 4096  # bytes (some lines) before the reading position that must be unchanged

MOST_SAMPLES = 1000
"""The most steps of samples listed; if there are more, this many are picked evenly."""
LONGEST_SAMPLES = 1 << 18
"""The most bytes read of a file of samples."""

_SAMPLES = re.compile(r"samples-(\d{1,15})")
_BLOCK = re.compile(r"^={8} SAMPLE (\d+) ={8}\n", re.M)


@dataclass(frozen=True)
class Lines:
    """The result of one look at a file.

    ``anew``: the file is not the same as before, and these lines are its first. ``more``: there is more to read now.
    ``part``: the part of the file, 0 to 1, that has been read. ``changed_at``: when it was last written to, in Unix
    seconds.
    """

    lines: list[bytes]
    anew: bool
    more: bool
    part: float
    changed_at: float


class Tail:
    """A reader of the whole lines of a growing file, each once; it starts again when the file is replaced or cut."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._forget()

    def read(self) -> Lines | None:
        """Return the next lines, at most :data:`CHUNK` bytes; None if there is no such file. Raises OSError."""
        try:
            if not stat.S_ISREG(self._path.stat().st_mode):  # opening a pipe would wait for its writer
                return None
            with self._path.open("rb", buffering=0) as file:
                return self._read(file.fileno())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _forget(self) -> None:
        self._identity: tuple[int, int] | None = None
        self._offset = 0
        self._mark = b""
        self._passing_over = False  # whether to skip the rest of an overlong line

    def _read(self, descriptor: int) -> Lines:
        status = os.fstat(descriptor)
        anew = self._identity != (status.st_dev, status.st_ino) or not self._same_before(descriptor, status.st_size)
        if anew:
            self._forget()
            self._identity = status.st_dev, status.st_ino
        os.lseek(descriptor, self._offset, os.SEEK_SET)
        data = _read_up_to(descriptor, CHUNK)
        whole = data[: data.rfind(b"\n") + 1]
        lines = whole.split(b"\n")[:-1]
        if self._passing_over and lines:
            lines, self._passing_over = lines[1:], False
        if not whole and len(data) == CHUNK:
            whole, self._passing_over = data, True
        self._offset += len(whole)
        self._mark = (self._mark + whole[-_MARK:])[-_MARK:]
        part = self._offset / status.st_size if status.st_size else 1.0
        return Lines(lines, anew, len(data) == CHUNK, min(1.0, part), status.st_mtime)

    def _same_before(self, descriptor: int, size: int) -> bool:
        """Return whether the file still has the bytes read last: a new file may have the same inode number."""
        if size < self._offset:
            return False
        os.lseek(descriptor, self._offset - len(self._mark), os.SEEK_SET)
        return _read_up_to(descriptor, len(self._mark)) == self._mark


def _read_up_to(descriptor: int, size: int) -> bytes:
    """Read ``size`` bytes, or as many as there are."""
    parts: list[bytes] = []
    while size and (part := os.read(descriptor, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def is_folder(path: Path) -> bool:
    """Return whether ``path`` is a folder, False if it cannot be accessed."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):  # ValueError: a NUL byte in the name
        return False


def list_samples(folder: Path) -> list[tuple[int, str]]:
    """Return the steps that have samples, ascending, each with a text that changes when the file does."""
    found: dict[int, str] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                match = _SAMPLES.fullmatch(entry.name)
                if match and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    found[int(match[1])] = f"{status.st_mtime_ns:x}-{status.st_size:x}"
    except (OSError, ValueError):  # ValueError: a NUL byte in the name
        pass  # not there yet, or removed meanwhile: list the files seen so far
    steps = sorted(found)
    if len(steps) > MOST_SAMPLES:
        steps = [steps[round(i * (len(steps) - 1) / (MOST_SAMPLES - 1))] for i in range(MOST_SAMPLES)]
    return [(step, found[step]) for step in steps]


@dataclass(frozen=True)
class Samples:
    """The texts of a file of samples; ``cut`` if the file was longer than :data:`LONGEST_SAMPLES`."""

    texts: list[str]
    cut: bool


def read_samples(folder: Path, step: int) -> Samples | None:
    """Return the samples that were written after ``step`` updates; None if there are none."""
    path = folder / f"samples-{step}"
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        with path.open("rb") as file:
            data = file.read(LONGEST_SAMPLES + 1)
    except (OSError, ValueError):  # ValueError: a NUL byte in the name
        return None
    cut = len(data) > LONGEST_SAMPLES
    return Samples(_split(data[:LONGEST_SAMPLES].decode("utf-8", "ignore" if cut else "replace")), cut)


def _split(text: str) -> list[str]:
    """Return the texts between lines ``======== SAMPLE n ========``; one with an unexpected n is part of a sample."""
    begins: list[re.Match[str]] = []  # none if the file is empty, or not one of samples
    for match in _BLOCK.finditer(text):
        if int(match[1]) == len(begins) + 1:
            begins.append(match)
    ends = [*(match.start() - 1 for match in begins[1:]), len(text)][: len(begins)]  # an empty line precedes the next
    return [text[begin.end() : end].removesuffix("\n") for begin, end in zip(begins, ends, strict=True)]
