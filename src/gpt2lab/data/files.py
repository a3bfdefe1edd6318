"""Find, classify, open, decompress and decode the files of a dataset, a block at a time.

A file's first bytes show its compression, its name the form of its contents. Knows nothing of tokens.
"""

from __future__ import annotations

import codecs
import glob
import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Literal, get_args

from gpt2lab.errors import UsageError

Kind = Literal["text", "jsonl", "csv", "npz", "shards"]
OnBytes = Callable[[int], None]
Errors = Literal["strict", "replace", "ignore"]

STDIN = "-"
BLOCK = 1 << 18
"""The number of bytes read at once, and about the amount of text that one thread encodes at once."""
SHARD_PATTERN = "tokens-*.safetensors"

_KINDS: dict[str, Kind] = {
    ".txt": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".npz": "npz",
    ".safetensors": "shards",
}
_COMPRESSED = (".gz", ".zst")
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"  # the first bytes of such files


@dataclass(frozen=True)
class Reading:
    """Options for reading files.

    Attributes:
        field: the field of a JSON object with the text; ``a,b`` reads ``a`` as a prompt, not trained on, before ``b``.
            None: ``text``, or else ``prompt,completion``.
        column: the column of a CSV file, by name or by number from 1; None: ``text``, or the only one.
        encoding: the encoding of text, by its Python name.
        errors: how to treat bytes that are invalid in that encoding: stop, replace them by ``�``, or skip them.
    """

    field: str | None = None
    column: str | None = None
    encoding: str = "utf-8"
    errors: Errors = "strict"

    def __post_init__(self) -> None:
        try:
            "x".encode(self.encoding)
        except LookupError:
            raise UsageError(f"there is no encoding {self.encoding!r}; try utf-8, cp1252, latin-1 or utf-16") from None
        if self.errors not in get_args(Errors):
            raise UsageError(f"errors is one of {', '.join(get_args(Errors))}, not {self.errors!r}")


@dataclass(frozen=True)
class Source:
    """A file of a dataset (or a folder of shards); ``path`` is None for standard input, ``size`` is in bytes."""

    name: str
    kind: Kind
    path: Path | None
    size: int


def find_sources(paths: Sequence[str], reading: Reading | None = None) -> list[Source]:
    """Find the sources that ``paths`` mean: files, folders (searched), patterns, ``-``; sorted by path, each once.

    In a folder, only files with a known suffix count: .txt, .jsonl, .ndjson, .csv, .tsv, .npz, also with .gz or .zst.
    A file named directly or by a pattern may have any other suffix: it is read as text (as JSON lines or CSV if
    ``reading`` names a field or column). Raises :class:`UsageError` for a path that matches nothing.
    """
    reading = reading or Reading()
    found: dict[Path, Source] = {}
    for path in paths:
        if path != STDIN:
            found.update((match, _source(match, reading)) for match in _matches(path))
    sources = [found[path] for path in sorted(found)]
    return [Source("standard input", _by_options(reading), None, 0), *sources] if STDIN in paths else sources


def _matches(path: str) -> list[Path]:
    if Path(path).is_dir():
        files = [Path(path)] if is_shards(Path(path)) else _in_folder(Path(path))
    elif Path(path).exists():  # then its name is not a pattern, even with special characters
        files = [Path(path)]
    else:
        matches = [Path(match) for match in glob.glob(path, recursive=True)]  # noqa: PTH207
        files = [match for match in matches if match.is_file() or is_shards(match)]
    if not files:
        raise UsageError(f"no text at {path}: give a file, a folder with .txt, .jsonl or .csv files, or a pattern")
    return files


def _in_folder(folder: Path) -> list[Path]:
    """Return the data files below a folder, judged by their names; leave out shards, partial and hidden files."""
    files = (file for file in folder.rglob("*") if _kind(file) not in (None, "shards") and file.is_file())

    def aside(file: Path) -> bool:
        return any(part.endswith(".partial") or part.startswith(".") for part in file.relative_to(folder).parts)

    return [file for file in files if not aside(file)]


def is_shards(path: Path) -> bool:
    """Return whether ``path`` is a folder that ``gpt2lab encode`` wrote."""
    return path.is_dir() and any(path.glob(SHARD_PATTERN))


def _source(path: Path, reading: Reading) -> Source:
    if path.is_dir():
        return Source(str(path), "shards", path, sum(file.stat().st_size for file in path.glob(SHARD_PATTERN)))
    return Source(str(path), _kind(path) or _by_options(reading), path, path.stat().st_size)


def _kind(path: Path) -> Kind | None:
    suffix = path.suffix.lower()
    return _KINDS.get(Path(path.stem).suffix.lower() if suffix in _COMPRESSED else suffix)


def _by_options(reading: Reading) -> Kind:
    return "jsonl" if reading.field else "csv" if reading.column else "text"


class _Counted(io.RawIOBase):
    """A file that reports the number of bytes read from it."""

    def __init__(self, file: IO[bytes], on_bytes: OnBytes) -> None:
        self._file = file
        self._on_bytes = on_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._file.read(len(buffer))
        buffer[: len(block)] = block
        self._on_bytes(len(block))
        return len(block)


@contextmanager
def open_bytes(source: Source, on_bytes: OnBytes = lambda _: None) -> Iterator[IO[bytes]]:
    """Open a file or standard input, decompressed; ``on_bytes`` gets the number of stored (compressed) bytes read.

    Raises :class:`UsageError` if the source cannot be read, its compressed data are damaged, or zstd is missing.
    """
    file = None
    try:
        file = sys.stdin.buffer if source.path is None else source.path.open("rb", buffering=0)
        plain = io.BufferedReader(_Counted(file, on_bytes), BLOCK)
        magic = plain.peek(4)[:4]
        stream: Any = plain
        if magic[:2] == _GZIP:
            stream = gzip.GzipFile(fileobj=plain)
        elif magic == _ZSTD:
            stream = _zstd_reader(source.name, plain)
        yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UsageError(f"{source.name}: its compressed data are damaged ({error})") from None
    except OSError as error:
        raise UsageError(f"cannot read {source.name}: {error.strerror or error}") from None
    except Exception as error:
        if type(error).__name__ == "ZstdError":
            raise UsageError(f"{source.name}: its compressed data are damaged ({error})") from None
        raise
    finally:
        if file is not None and source.path is not None:
            file.close()


def _zstd_reader(name: str, file: IO[bytes]) -> Any:
    try:
        return import_module("compression.zstd").ZstdFile(file)
    except ModuleNotFoundError:
        pass
    try:
        return import_module("zstandard").ZstdDecompressor().stream_reader(file, read_across_frames=True)
    except ModuleNotFoundError:
        raise UsageError(f"{name} is compressed with zstd: pip install zstandard, or use Python 3.14") from None


def text_blocks(stream: IO[bytes], name: str, reading: Reading) -> Iterator[str]:
    """Yield a file's text, a block at a time, without a byte-order mark; ``\\r\\n`` and ``\\r`` become ``\\n``.

    Raises :class:`UsageError` for bytes that are not text, with the offset of the first one.
    """
    decoder = codecs.getincrementaldecoder(reading.encoding)(reading.errors)
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    offset = 0
    begun = False
    while True:
        block = stream.read(BLOCK)
        if offset == 0 and not reading.encoding.lower().startswith(("utf-16", "utf_16", "utf-32", "utf_32")):
            _check_not_binary(block, name)
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            label = "UTF-8" if reading.encoding == "utf-8" else reading.encoding
            at = offset - pending + error.start
            raise UsageError(
                f"{name} is not {label} text (byte {at}): give its --encoding, or gpt2lab encode it with "
                "--errors replace"
            ) from None
        text = newlines.decode(text, final=not block)
        yield text if begun else text.removeprefix("\ufeff")
        begun = begun or bool(text)
        offset += len(block)
        if not block:
            return


def _check_not_binary(block: bytes, name: str) -> None:
    zero = block.find(b"\0", 0, 8192)
    if zero >= 0:
        raise UsageError(f"{name} is a binary file, not text (byte {zero} is 0); UTF-16 needs --encoding utf-16")
