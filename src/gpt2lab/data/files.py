"""Open, decompress and decode the files of a dataset, a block at a time.

A file's first bytes show its compression. Line ends and byte-order marks are treated here, once for all formats and all
commands. This module knows nothing of the form of the contents, nor of tokens.
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Literal, get_args

from gpt2lab.data.archives import open_member
from gpt2lab.errors import UsageError
from gpt2lab.weights.checkpoint import check_not_pointer

Kind = Literal["text", "jsonl", "json", "csv", "tsv", "parquet", "npz", "shards"]
OnBytes = Callable[[int], None]
Errors = Literal["strict", "replace", "ignore", "skip"]

BLOCK = 1 << 18
"""The number of bytes read at once, and about the amount of text that one thread encodes at once."""
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"  # the first bytes of such files
_UNREAD = {re.compile(rb"BZh[1-9]1AY&SY"): "bzip2", re.compile(rb"\xfd7zXZ\0"): "xz"}  # by the first bytes


@dataclass(frozen=True)
class Reading:
    """Options for reading files.

    Attributes:
        field: the field of a JSON object with the text; ``a,b`` reads ``a`` as a prompt, not trained on, before ``b``.
            None: ``text``, or else ``prompt,completion``.
        column: the column of a CSV file, by name or by number from 1; None: ``text``, or the only one.
        encoding: the encoding of text, by its Python name.
        errors: at bytes that are invalid in that encoding, and at unpaired surrogates, ``strict`` stops, ``replace``
            reads ``�``, and ``ignore`` leaves them out. ``skip`` stops at such bytes too, but skips any number of
            unusable records; with the other three, a share of them above ``tolerance`` is an error.
        tolerance: the share of a file's records that may be unusable.
    """

    field: str | None = None
    column: str | None = None
    encoding: str = "utf-8"
    errors: Errors = "strict"
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        try:
            codec = codecs.lookup(self.encoding)
            usable = codec.incrementaldecoder is not None and "x".encode(self.encoding) is not None
        except (LookupError, ValueError):  # the codec "undefined" raises UnicodeError; a name with a null, ValueError
            usable = False
        if not usable:
            raise UsageError(f"unknown encoding {self.encoding!r}; try utf-8, cp1252, latin-1 or utf-16")
        if self.errors not in get_args(Errors):
            raise UsageError(f"errors must be one of {', '.join(get_args(Errors))}, not {self.errors!r}")

    @property
    def codec(self) -> str:
        """The encoding's canonical name: ``utf16`` and ``UTF_16`` are ``utf-16``."""
        return codecs.lookup(self.encoding).name


@dataclass(frozen=True)
class Source:
    """A file of a dataset, a folder of shards or a member of an archive.

    ``path`` is None for standard input; ``size`` is in bytes as stored.
    """

    name: str
    kind: Kind
    path: Path | None
    size: int
    member: str | None = None


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

    Raises :class:`UsageError` if the source cannot be read, the compressed data is damaged, zstd is missing, or the
    data is compressed in another way.
    """
    file = None
    try:
        file = _open(source)
        plain = io.BufferedReader(_Counted(file, on_bytes), BLOCK)
        check_not_pointer(source.name, plain.peek(64))
        magic = plain.peek(4)[:4]
        stream: Any = plain
        if magic[:2] == _GZIP:
            stream = gzip.GzipFile(fileobj=plain)
        elif magic == _ZSTD:
            stream = _zstd_reader(source.name, plain)
        for other, kind in _UNREAD.items():
            if other.match(plain.peek(16)):
                raise UsageError(f"{source.name} is compressed with {kind}: decompress it, or use gzip or zstd")
        yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UsageError(f"{source.name}: the compressed data is damaged ({error})") from None
    except OSError as error:
        raise UsageError(f"cannot read {source.name}: {error.strerror or error}") from None
    except Exception as error:
        if type(error).__name__ == "ZstdError":
            raise UsageError(f"{source.name}: the compressed data is damaged ({error})") from None
        raise
    finally:
        if file is not None and source.path is not None:
            file.close()


def _open(source: Source) -> IO[bytes]:
    if source.path is None:
        return sys.stdin.buffer
    if source.member is not None:
        return open_member(source.path, source.member)
    return source.path.open("rb", buffering=0)


def _zstd_reader(name: str, file: IO[bytes]) -> Any:
    try:
        return import_module("compression.zstd").ZstdFile(file)
    except ModuleNotFoundError:
        pass
    try:
        return import_module("zstandard").ZstdDecompressor().stream_reader(file, read_across_frames=True)
    except ModuleNotFoundError:
        raise UsageError(f"{name} is compressed with zstd: pip install zstandard, or use Python 3.14") from None


def text_blocks(stream: IO[bytes], name: str, reading: Reading, *, hints: bool = True) -> Iterator[str]:
    """Yield a file's text, a block at a time, without a byte-order mark; ``\\r\\n`` and ``\\r`` become ``\\n``.

    This is how the original opened its datasets (Python's text mode), and holds for every command. Raises
    :class:`UsageError` for bytes that are not text, with the offset and the line of the first one;
    ``hints`` adds the options that help to the message; not every command has them.
    """
    codec = reading.codec
    decoder = codecs.getincrementaldecoder(codec)("strict" if reading.errors == "skip" else reading.errors)
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    offset, line = 0, 1
    begun = False
    while True:
        block = stream.read(BLOCK)
        if offset == 0 and not codec.startswith(("utf-16", "utf-32")):
            _check_not_binary(block, name, hints)
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeError as error:  # most are UnicodeDecodeError, which has a place
            at = getattr(error, "start", 0)
            lines = _line_ends(getattr(error, "object", b"")[:at], codec)
            raise _not_text(name, codec, max(0, offset - pending + at), line + lines, hints) from None
        if codec != "utf-8" and HALF.search(text):  # utf-7 and unicode_escape can encode a surrogate
            if reading.errors not in ("replace", "ignore"):
                raise _not_text(name, codec, offset, line, hints)
            text = without_halves(text, reading.errors)
        text = newlines.decode(text, final=not block)
        yield text if begun else text.removeprefix("\ufeff")
        begun = begun or bool(text)
        offset += len(block)
        line += text.count("\n")
        if not block:
            return


def _line_ends(data: bytes, codec: str) -> int:
    try:
        return data.decode(codec, "replace").count("\n")
    except UnicodeError:  # idna replaces nothing
        return 0


HALF = re.compile("[\ud800-\udfff]")
"""An unpaired surrogate, which is not a character."""


def without_halves(text: str, errors: Errors) -> str:
    """Join surrogate pairs in ``text``; replace unpaired ones with ``�``, or drop them with ``ignore``."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "ignore" if errors == "ignore" else "replace")


def _not_text(name: str, codec: str, at: int, line: int, hints: bool) -> UsageError:
    label = "UTF-8" if codec == "utf-8" else codec
    hint = ": give its --encoding, or --errors replace to read it as �" if hints else ""
    return UsageError(f"{name} is not {label} text (byte {at}, line {line}){hint}")


def _check_not_binary(block: bytes, name: str, hints: bool) -> None:
    zero = block.find(b"\0", 0, 8192)
    if zero >= 0:
        hint = "; for UTF-16 text give --encoding utf-16" if hints else ""
        raise UsageError(f"{name} is a binary file, not text (byte {zero} is 0){hint}")
