"""Encoded datasets: a folder of ``tokens-00001.safetensors``, ``tokens-00002.safetensors``, … for memory-mapping.

Each shard holds whole documents without separators: ``tokens`` (U16, or U32 for a vocabulary beyond 65536),
``documents`` (I64, the start of each), ``characters`` (I64, the length of each) and, if some tokens are not trained on,
``trained`` (U8 per token). Its metadata identifies the vocabulary by
:func:`~gpt2lab.data.vocabulary.vocabulary_hash`. A header of fixed size is written last, so tokens go to disk as they
arrive; ``padding`` aligns the arrays after them. ``crc32`` covers the arrays and the other metadata.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from gpt2lab.data.encoding import DocumentIndex, Encoded
from gpt2lab.data.finding import SHARD_PATTERN
from gpt2lab.data.mapped import MappedRow
from gpt2lab.data.tokens import Documents, id_type
from gpt2lab.errors import CheckpointError, UsageError
from gpt2lab.system.atomic import PARTIAL, new_folder, replace
from gpt2lab.system.locks import Hold
from gpt2lab.system.marks import delete, matches
from gpt2lab.weights.safetensors_file import SafeTensor, read_safetensors

FORMAT = "gpt2lab tokens 1"
SHARD_TOKENS = 100_000_000
"""The number of tokens after which a shard ends, once the current document is complete."""

_HEADER = 1024  # bytes, including the field with its length
_TYPES = {"U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "I64": np.int64}
_CODES = {np.dtype(type): code for code, type in _TYPES.items()}
_UNFINISHED = "tokens-*.trained"  # beside a shard while it is written
_COPY = 1 << 20  # bytes copied at once
_SCAN = 1 << 22  # tokens checked at once


@dataclass(frozen=True)
class Totals:
    """Totals of the shards written."""

    documents: int = 0
    tokens: int = 0
    n_bytes: int = 0
    shards: int = 0


# ---- writing --------------------------------------------------------------------------------------------------------


class _ShardFile:
    """A shard being written."""

    def __init__(self, path: Path, n_vocab: int, vocabulary: str) -> None:
        self._path = path
        self._trained_path = path.with_suffix(".trained")
        self._metadata = {"format": FORMAT, "n_vocab": str(n_vocab), "vocabulary": vocabulary}
        self._dtype = id_type(n_vocab)
        self._index = DocumentIndex()
        self._file = path.open("wb")
        self._file.write(bytes(_HEADER))
        self._crc = 0
        self._trained: IO[bytes] | None = None
        self.tokens = 0
        self.n_bytes = 0

    def add(self, encoded: Encoded) -> None:
        self._index.add(encoded)
        self._write(encoded.ids.tobytes())
        if self._trained is None and not encoded.trained.all():  # all tokens before these are trained on
            self._trained = self._trained_path.open("w+b")
            for first in range(0, self.tokens, _COPY):
                self._trained.write(b"\1" * min(_COPY, self.tokens - first))
        if self._trained is not None:
            self._trained.write(encoded.trained_tokens().tobytes())
        self.tokens += len(encoded.ids)
        self.n_bytes += int(encoded.n_bytes.sum())

    def finish(self) -> int:
        """Write the rest and the header; return the number of documents."""
        starts = self._index.starts()
        parts: list[tuple[str, Any, int]] = [("tokens", self._dtype, self.tokens)]
        size = self.tokens * np.dtype(self._dtype).itemsize
        if self._trained is not None:
            self._trained.seek(0)
            while block := self._trained.read(_COPY):
                self._write(block)
            parts.append(("trained", np.uint8, self.tokens))
            size += self.tokens
        if size % 8:
            self._write(bytes(-size % 8))
            parts.append(("padding", np.uint8, -size % 8))
        for name, row in (("documents", starts), ("characters", self._index.characters())):
            self._write(row.tobytes())
            parts.append((name, np.int64, len(row)))
        self._write_header(parts)
        self.close()
        return len(starts)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._crc = zlib.crc32(data, self._crc)

    def _write_header(self, parts: list[tuple[str, Any, int]]) -> None:
        header: dict[str, Any] = {"__metadata__": {**self._metadata, "bytes": str(self.n_bytes)}}
        begin = 0
        for name, dtype, count in parts:
            end = begin + count * np.dtype(dtype).itemsize
            header[name] = {"dtype": _CODES[np.dtype(dtype)], "shape": [count], "data_offsets": [begin, end]}
            begin = end
        header["__metadata__"]["crc32"] = str(_with_header(self._crc, header))
        text = json.dumps(header, separators=(",", ":")).encode().ljust(_HEADER - 8)
        self._file.seek(0)
        self._file.write(len(text).to_bytes(8, "little") + text)

    def close(self) -> None:
        self._file.close()
        if self._trained is not None:
            self._trained.close()
            self._trained_path.unlink(missing_ok=True)
            self._trained = None


def write_shards(
    folder: Path, stream: Iterable[Encoded], n_vocab: int, vocabulary: str, shard_tokens: int = SHARD_TOKENS
) -> Totals:
    """Write ``stream`` into shards in an existing folder; ``vocabulary`` is the hash of its vocabulary."""
    totals = Totals()
    shard: _ShardFile | None = None
    try:
        for encoded in _with_breaks(stream, shard_tokens):
            if encoded is None and shard is not None:
                totals, shard = _closed(totals, shard), None
            if encoded is not None and len(encoded.ids):
                path = folder / _file_name(totals.shards + 1)
                shard = shard or _ShardFile(path, n_vocab, vocabulary)
            if encoded is not None and shard is not None:
                shard.add(encoded)
        return totals if shard is None else _closed(totals, shard)
    finally:
        if shard is not None:
            shard.close()


def _closed(totals: Totals, shard: _ShardFile) -> Totals:
    documents = totals.documents + shard.finish()
    return Totals(documents, totals.tokens + shard.tokens, totals.n_bytes + shard.n_bytes, totals.shards + 1)


def _with_breaks(stream: Iterable[Encoded], shard_tokens: int) -> Iterator[Encoded | None]:
    """Yield ``stream``, with None wherever a shard is full and a document ends."""
    tokens = 0
    for whole in stream:
        encoded = whole
        while True:
            so_far = tokens + np.cumsum(encoded.lengths)
            full = np.flatnonzero(encoded.ends & (so_far >= shard_tokens))
            if not len(full):
                break
            before, encoded = _split(encoded, int(full[0]) + 1)
            yield before
            yield None
            tokens = 0
        tokens += len(encoded.ids)
        yield encoded


def _split(encoded: Encoded, pieces: int) -> tuple[Encoded, Encoded]:
    """Split off the first ``pieces`` pieces; return them and the rest."""
    at = int(encoded.lengths[:pieces].sum())
    first, rest = slice(None, pieces), slice(pieces, None)

    def part(ids: slice, which: slice) -> Encoded:
        return Encoded(
            encoded.ids[ids],
            encoded.lengths[which],
            encoded.characters[which],
            encoded.ends[which],
            encoded.trained[which],
            encoded.n_bytes[which],
        )

    return part(slice(None, at), first), part(slice(at, None), rest)


@contextmanager
def new_shards(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Create a folder ``<path>.gpt2lab.partial`` that becomes ``path`` when the block ends without an error.

    The shards that a killed run left are removed first. With ``overwrite``, an existing folder of shards is replaced.
    Raises :class:`UsageError` if anything else is in the way, another process is writing there, or the folder cannot
    be written.
    """
    if not path.name:
        raise UsageError(f"{str(path)!r} is not a valid name for an encoded dataset; give a new folder")
    partial = path.with_name(path.name + PARTIAL)
    old = path.with_name(f"{path.name}.old{PARTIAL}")
    with Hold() as hold, _complaining(path):
        hold.take(partial, create=True)
        if old.exists() and not path.exists():  # a run was killed between moving the old one aside and the new one in
            replace(old, path)
        _check_replaceable(path, overwrite)
        for leftover in (partial, old):
            _delete_shards(leftover)
        with new_folder(path, sync=False, partial=partial, aside=old):
            yield partial
        _delete_shards(old)
        if old.exists():
            old.rmdir()


@contextmanager
def _complaining(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or path}: {error.strerror or error}") from None


def _delete_shards(folder: Path) -> None:
    """Delete shards, complete or not, or a link to them. Raises :class:`UsageError` if the folder has other files."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.is_dir():
        delete(folder, [file.name for file in folder.iterdir() if matches(file.name, (SHARD_PATTERN, _UNFINISHED))])
        if any(folder.iterdir()):
            raise UsageError(f"{folder} contains files that gpt2lab encode did not write: move them elsewhere")


def _check_replaceable(path: Path, overwrite: bool) -> None:
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not overwrite:
        raise UsageError(f"{path} already exists; give another name or --overwrite")
    if not path.is_dir() or any(not file.match(SHARD_PATTERN) for file in path.iterdir()):
        raise UsageError(f"{path} is not an encoded dataset and will not be replaced; give another name")


# ---- reading --------------------------------------------------------------------------------------------------------


def _file_name(number: int) -> str:
    return f"tokens-{number:05d}.safetensors"


def read_shards(path: Path, n_vocab: int, vocabulary: str) -> list[Documents]:
    """Return the documents of a folder of shards, or of one shard, memory-mapped.

    Reads each shard once to compare it with its checksum, or if it has none, its ids with the vocabulary. Raises
    :class:`UsageError` if a shard has another vocabulary, and :class:`CheckpointError` if it is damaged.
    """
    files = sorted(path.glob(SHARD_PATTERN)) if path.is_dir() else [path]
    for number, file in enumerate(files, start=1):
        if path.is_dir() and file.name != _file_name(number):
            raise CheckpointError(f"{path} lacks {_file_name(number)}: encode it again, or copy all its files")
    return [_read_shard(file, n_vocab, vocabulary) for file in files]


def _read_shard(path: Path, n_vocab: int, vocabulary: str) -> Documents:
    tensors = read_safetensors(path)
    header = _header(path)
    metadata = header.get("__metadata__") or {}
    if metadata.get("format") != FORMAT:
        raise UsageError(f"{path} was not written by gpt2lab encode (its format is {metadata.get('format')!r})")
    if metadata.get("vocabulary") != vocabulary:
        raise UsageError(
            f"{path} was encoded with another vocabulary, of {metadata.get('n_vocab')} tokens; encode the text "
            "again with --model_name of this model"
        )
    _check_sum(tensors, header)
    arrays = {name: _row(path, name, tensor) for name, tensor in tensors.items()}
    tokens, starts = arrays.get("tokens"), arrays.get("documents")
    if tokens is None or starts is None or tokens.dtype != id_type(n_vocab) or starts.dtype != np.int64:
        raise CheckpointError(f"{path} is damaged: it lacks the tokens or documents that gpt2lab encode writes")
    if "crc32" not in metadata:
        _check_ids(path, tokens, n_vocab)
    edges = np.append(starts[:], len(tokens))
    if edges[0] != 0 or (np.diff(edges) <= 0).any():
        raise CheckpointError(f"{path} is damaged: its document starts are invalid")
    trained, characters = arrays.get("trained"), arrays.get("characters")
    if (trained is not None and len(trained) != len(tokens)) or (
        characters is not None and len(characters) != len(starts)
    ):
        raise CheckpointError(f"{path} is damaged: its arrays differ in length")
    return Documents(tokens, starts[:], trained, None if characters is None else characters[:])


def _header(path: Path) -> dict[str, Any]:
    """Return the header of a file, which was already checked."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return header if isinstance(header.get("__metadata__", {}), dict) else {}


def _with_header(crc: int, header: dict[str, Any]) -> int:
    """Return the checksum of a file whose arrays have the checksum ``crc``."""
    metadata = {name: value for name, value in header["__metadata__"].items() if name != "crc32"}
    return zlib.crc32(json.dumps({**header, "__metadata__": metadata}, separators=(",", ":")).encode(), crc)


def _check_sum(tensors: dict[str, SafeTensor], header: dict[str, Any]) -> None:
    """Raise :class:`CheckpointError` if a file differs from its checksum; older ones have none."""
    expected = header["__metadata__"].get("crc32")
    for tensor in list(tensors.values())[:1]:
        file = tensor.file
        begin = min(tensor.start for tensor in tensors.values())
        if expected is not None and str(_with_header(file.crc32(begin), header)) != expected:
            raise CheckpointError(f"{file.path} differs from its checksum: it is damaged; encode the text again")


def _check_ids(path: Path, tokens: MappedRow, n_vocab: int) -> None:
    for first in range(0, len(tokens), _SCAN):
        largest = tokens[first : first + _SCAN].max()
        if largest >= n_vocab:
            raise CheckpointError(
                f"{path} has the token {largest}, outside the vocabulary (0 to {n_vocab - 1}); encode the text again"
            )


def _row(path: Path, name: str, tensor: SafeTensor) -> MappedRow:
    dtype = _TYPES.get(tensor.dtype)
    if dtype is None or tensor.shape != (tensor.size // np.dtype(dtype).itemsize,):
        raise CheckpointError(f"{path}: {name} of type {tensor.dtype} and shape {list(tensor.shape)} is malformed")
    return MappedRow(tensor.file, tensor.start, np.dtype(dtype), tensor.shape)
