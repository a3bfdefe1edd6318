"""Data sets on disk: plain files, archives, JSON lines, Parquet.

Reads lines and records one by one, and reports the place of a malformed one. This module knows benchmarks only by their
file names.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from gpt2lab.data.archives import is_archive, members, open_member, readable
from gpt2lab.data.records import parquet_rows
from gpt2lab.errors import UsageError
from gpt2lab.weights.checkpoint import check_not_pointer

Tick = Callable[[int], None]
"""A callback that receives the number of examples, or of bytes of a text, read since the last call."""

LINE = 1 << 18
"""Bytes read at a time from a longer line, where lines need not be whole."""


@dataclass(frozen=True)
class Source:
    """One file, or one member of an archive."""

    path: Path
    member: str | None = None

    @property
    def name(self) -> str:
        """The source's name in messages."""
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    @property
    def kind(self) -> str:
        """The name's suffix without ``.gz``: ``.jsonl``, ``.parquet``, ``.txt`` …"""
        return Path((self.member or self.path.name).lower().removesuffix(".gz")).suffix

    def lines(self, size: int = -1) -> Iterator[bytes]:
        """Yield the lines with their ends; with a ``size``, longer ones in parts."""
        check_not_pointer(self.path)
        with readable(self.path), ExitStack() as stack:
            file = self._open(stack)
            while line := file.readline(size):
                yield line

    def _open(self, stack: ExitStack) -> IO[bytes]:
        file: Any = stack.enter_context(open_member(self.path, self.member) if self.member else self.path.open("rb"))
        if (self.member or self.path.name).lower().endswith(".gz"):
            file = stack.enter_context(gzip.GzipFile(fileobj=file))
        opened: IO[bytes] = file
        return opened


def find_sources(path: Path, patterns: Sequence[str]) -> list[Source]:
    """Return the file ``path``, or the files in the folder or archive ``path`` that match the first successful pattern.

    Raises :class:`~gpt2lab.errors.UsageError` if there is no such file.
    """
    if path.is_dir():
        names = sorted(each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_file())
        found = [Source(path / name) for name in _like(names, patterns)]
    elif is_archive(path):
        found = [Source(path, name) for name in _like([name for name, _ in members(path)], patterns)]
    elif path.exists():
        return [Source(path)]
    else:
        raise UsageError(f"there is no file {path}")
    if not found:
        raise UsageError(f"{path} has no file named like {' or '.join(patterns)}")
    return found


def records(source: Source) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield, for each record of a JSON-lines or Parquet file, its place in words and the record."""
    if source.kind == ".parquet":
        yield from _parquet(source)
        return
    for where, line in numbered_lines(source):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{where} is not JSON ({error})") from None
        except RecursionError:
            raise UsageError(f"{where} is nested too deeply") from None
        if not isinstance(record, dict):
            raise UsageError(f"{where} must be a JSON object, got {type(record).__name__}")
        yield where, record


def numbered_lines(source: Source) -> Iterator[tuple[str, str]]:
    """Yield, for each nonempty line of a text file, its place in words and the line without its end."""
    for number, line in enumerate(source.lines(), 1):
        where = f"line {number} of {source.name}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UsageError(f"{where} is not UTF-8 text ({error.reason}); convert it to UTF-8") from None
        if text.strip():
            yield where, text


def string(record: dict[str, Any], key: str, where: str) -> str:
    """Return a field that must exist and be a string."""
    value = _field(record, key, where)
    if not isinstance(value, str):
        raise UsageError(f"{where}: {key!r} must be a string, got {value!r:.60}")
    return value


def strings(record: dict[str, Any], key: str, where: str) -> list[str]:
    """Return a field that must exist and be a list of at least two strings."""
    value = _field(record, key, where)
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(each, str) for each in value):
        raise UsageError(f"{where}: {key!r} must be a list of at least two strings, got {value!r:.60}")
    return value


def _field(record: dict[str, Any], key: str, where: str) -> Any:
    if key not in record:
        raise UsageError(f"{where} has no {key!r}; its keys are {', '.join(map(repr, record)) or 'none'}")
    return record[key]


def _like(names: list[str], patterns: Sequence[str]) -> list[str]:
    for pattern in patterns:
        if found := [name for name in names if fnmatch(name.rsplit("/", 1)[-1].lower(), pattern.lower())]:
            return found
    return []


def _parquet(source: Source) -> Iterator[tuple[str, dict[str, Any]]]:
    if find_spec("pyarrow") is None:
        raise UsageError(f"{source.name} needs pyarrow (pip install pyarrow); or give the data as .jsonl or .txt")
    if source.member is not None:
        raise UsageError(f"{source.name}: take the Parquet file out of its archive first")
    for number, record in enumerate(parquet_rows(source.path, source.name), 1):
        yield f"row {number} of {source.name}", record
