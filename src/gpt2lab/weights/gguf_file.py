"""The GGUF container: typed metadata, tensor directory, aligned tensor data. Reads versions 2 and 3, writes 3.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Arrays are located when a file is opened and parsed only
on request. Everything that a file claims (counts, lengths, types, offsets) is checked here. This module knows nothing
of GPT-2.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from struct import Struct
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from gpt2lab.errors import CheckpointError
from gpt2lab.weights.checkpoint import MappedFile
from gpt2lab.weights.precisions import GGML_TYPES, Precision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpt2lab.weights.writing import NewTensor

MAGIC = b"GGUF"
_SCALARS = {n: Struct(f"<{code}") for n, code in [*enumerate("BbHhIifB"), (10, "Q"), (11, "q"), (12, "d")]}
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_TYPE_NAMES = dict(enumerate(["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "bool", "string"]))
_DEFAULT_ALIGNMENT = 32
_MAX_DIMENSIONS = 4

KnownStrings = Mapping[int, tuple[int, str]]
"""Maps an array's number of strings to its size in bytes and its SHA-256.

Such an array is recognised without parsing it.
"""


class GgufTensor(NamedTuple):
    """A tensor's place: ``shape`` is row-major (the file's order reversed), ``offset`` counts from the file's start."""

    shape: tuple[int, ...]
    precision: Precision
    offset: int


class GgufArray(NamedTuple):
    """An array's place in the metadata; ``sha256`` is set if it is a known array."""

    type: int
    length: int
    start: int
    sha256: str | None

    def __repr__(self) -> str:
        return f"a list of {self.length}"


class GgufFile(NamedTuple):
    """An opened file: scalars and strings by key, arrays by place, tensors by name."""

    file: MappedFile
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]

    def strings(self, key: str) -> list[str]:
        """Return the strings of a metadata array."""
        array = self.metadata.get(key)
        if not isinstance(array, GgufArray) or array.type != _STRING:
            raise CheckpointError(f"{self.file.path}: {key} is not a list of strings")
        reader = _Reader(self.file, array.start)
        return [reader.string() for _ in range(array.length)]

    def items(self, tensor: GgufTensor) -> NDArray[Any]:
        """Return a tensor's stored items as a 1-D array of its precision's dtype."""
        precision = tensor.precision
        return self.file.array(tensor.offset, precision.dtype, (math.prod(tensor.shape) // precision.block,))


class _Reader:
    """A cursor over the header; :class:`MappedFile` keeps it inside the file."""

    def __init__(self, file: MappedFile, at: int) -> None:
        self.file = file
        self.at = at

    def bytes(self, size: int) -> memoryview:
        part = self.file.part(self.at, size)
        self.at += size
        return part

    def number(self, kind: int) -> Any:
        scalar = _SCALARS[kind]
        return scalar.unpack(self.bytes(scalar.size))[0]

    def uint32(self) -> int:
        return int.from_bytes(self.bytes(4), "little")

    def peek_uint32(self) -> int:
        return int.from_bytes(self.file.part(self.at, 4), "little")

    def uint64(self) -> int:
        return int.from_bytes(self.bytes(8), "little")

    def string(self) -> str:
        start = self.at
        try:
            return str(self.bytes(self.uint64()), "utf-8")
        except UnicodeDecodeError:
            raise CheckpointError(f"{self.file.path}: a string at byte {start} is not UTF-8") from None

    def value(self, known: KnownStrings) -> Any:
        kind = self.uint32()
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array(known)
        if kind not in _SCALARS:
            raise CheckpointError(f"{self.file.path}: metadata of unknown type {kind} at byte {self.at}")
        value = self.number(kind)
        return bool(value) if kind == _BOOL else value

    def _array(self, known: KnownStrings) -> GgufArray:
        kind, count = self.uint32(), self.uint64()
        start, sha256 = self.at, None
        if kind == _STRING:
            if count * 8 > len(self.file) - start:
                raise CheckpointError(
                    f"{self.file.path}: claims a list of {count} strings, which would be longer than the file"
                )
            sha256 = self._skip_known(known.get(count))
            if sha256 is None:
                for _ in range(count):
                    self.bytes(self.uint64())
        elif kind in _SCALARS:
            self.bytes(count * _SCALARS[kind].size)
        else:
            raise CheckpointError(f"{self.file.path}: a list of unsupported type {kind} at byte {start}")
        return GgufArray(kind, count, start, sha256)

    def _skip_known(self, known: tuple[int, str] | None) -> str | None:
        """Skip an array of strings if its bytes are the known ones; otherwise leave the cursor where it is."""
        if known is None or self.at + known[0] > len(self.file):
            return None
        n_bytes, sha256 = known
        if hashlib.sha256(self.file.part(self.at, n_bytes)).hexdigest() != sha256:
            return None
        self.at += n_bytes
        return sha256


def read_gguf_file(path: Path, known: KnownStrings) -> GgufFile:
    """Open a file, and check its header and the places of its tensors as llama.cpp does. Reads no tensor data."""
    file = MappedFile(path)
    if bytes(file.data[:4]) != MAGIC:
        raise CheckpointError(f"{path}: not a GGUF file")
    reader = _Reader(file, 4)
    _check_version(path, reader.uint32())
    n_tensors, n_values = reader.uint64(), reader.uint64()
    metadata: dict[str, Any] = {}
    alignment = _DEFAULT_ALIGNMENT
    for _ in range(n_values):
        key = reader.string()
        if key in metadata:
            raise CheckpointError(f"{path}: metadata {key} occurs twice")
        kind = reader.peek_uint32()
        metadata[key] = reader.value(known)
        if key == "general.alignment":
            alignment = _checked_alignment(path, kind, metadata[key])
    infos: dict[str, GgufTensor] = {}
    for _ in range(n_tensors):
        name = reader.string()
        if name in infos:
            raise CheckpointError(f"{path}: tensor {name} occurs twice")
        infos[name] = _tensor_info(reader, name)
    return GgufFile(file, metadata, _place(file, infos, reader.at, alignment))


def _check_version(path: Path, version: int) -> None:
    if version & 0xFFFF == 0 and version:
        raise CheckpointError(
            f"{path} is a big-endian GGUF file: convert it with 'gguf-convert-endian FILE little', of the gguf package"
        )
    if version not in (2, 3):
        raise CheckpointError(f"{path}: GGUF version {version} is not supported (2 and 3 are)")


def _checked_alignment(path: Path, kind: int, value: Any) -> int:
    """Return the alignment of the tensors' data. The specification asks for a uint32, llama.cpp for a power of two."""
    if kind != _UINT32 or value.bit_count() != 1:
        found = f"{value!r} as {_TYPE_NAMES.get(kind, kind)}"
        raise CheckpointError(f"{path}: general.alignment must be a power of two as uint32, not {found}")
    return int(value)


def _tensor_info(reader: _Reader, name: str) -> GgufTensor:
    """Read one entry of the directory; its offset still counts from the start of the data."""
    path = reader.file.path
    n_dimensions = reader.uint32()
    if n_dimensions > _MAX_DIMENSIONS:
        raise CheckpointError(f"{path}: tensor {name} has {n_dimensions} dimensions")
    shape = tuple(reader.uint64() for _ in range(n_dimensions))[::-1]
    kind = reader.uint32()
    precision = GGML_TYPES.get(kind)
    if precision is None:
        raise CheckpointError(f"{path}: tensor {name} has GGML type {kind}, which is unknown or no longer in use")
    if not shape or shape[-1] % precision.block:
        raise CheckpointError(f"{path}: tensor {name} of shape {list(shape)} cannot be {precision.name}")
    return GgufTensor(shape, precision, reader.uint64())


def _place(file: MappedFile, infos: dict[str, GgufTensor], header: int, alignment: int) -> dict[str, GgufTensor]:
    """Rebase offsets to the file's start.

    Each tensor must start where the one before it ends, rounded up to the alignment, and the file must end with the
    last one or its padding. So a wrong type or shape, which would give other weights, is found.
    """
    start = _aligned(header, alignment)
    expected, end, tensors, paddings = 0, header, {}, []
    for name, info in infos.items():
        if info.offset != expected:
            raise _misplaced(file, f"the data of {name} starts at byte {info.offset}, not {expected}")
        size = info.precision.n_bytes(math.prod(info.shape))
        file.part(start + expected, size)
        tensors[name] = info._replace(offset=start + expected)
        end = start + expected + size
        expected = _aligned(expected + size, alignment)
        paddings.append((name, end, min(start + expected, len(file))))
    if len(file) > _aligned(end, alignment):
        raise _misplaced(file, f"{len(file) - end} bytes follow the last tensor")
    for name, first, last in paddings:  # all writers fill it with zeros
        if first < last and bytes(file.data[first:last]) != bytes(last - first):
            raise _misplaced(file, f"the padding after {name} is not zero")
    return tensors


def _misplaced(file: MappedFile, what: str) -> CheckpointError:
    return CheckpointError(f"{file.path}: {what}: a tensor's type or shape is wrong, or the file is damaged")


def write_gguf_file(out: IO[bytes], metadata: Mapping[str, Any], tensors: list[NewTensor]) -> None:
    """Write version 3, aligned to 32 bytes.

    Metadata values are str, bool, int (stored as uint32), float (float32), or a list of str or of int (int32).
    """
    header = [MAGIC, struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    for key, value in metadata.items():
        header += [_packed_string(key), _packed_value(value)]
    type_of = {precision.name: number for number, precision in GGML_TYPES.items()}
    offset = 0
    for tensor in tensors:
        n_dims = len(tensor.shape)
        header += [_packed_string(tensor.name), struct.pack(f"<I{n_dims}Q", n_dims, *tensor.shape[::-1])]
        header.append(struct.pack("<IQ", type_of[tensor.precision.name], offset))
        offset += _aligned(tensor.precision.n_bytes(math.prod(tensor.shape)))
    _write_padded(out, b"".join(header))
    for tensor in tensors:
        _write_padded(out, tensor.items().view("u1").data)


def packed_strings(strings: list[str]) -> bytes:
    """Pack a list of strings as it is stored in a file, without its type and count."""
    return b"".join(map(_packed_string, strings))


def _packed_string(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _packed_value(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _UINT32, value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT32, value)
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _packed_string(value)
    if value and isinstance(value[0], int):
        return struct.pack(f"<IIQ{len(value)}i", _ARRAY, _INT32, len(value), *value)
    return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + packed_strings(value)


def _aligned(size: int, alignment: int = _DEFAULT_ALIGNMENT) -> int:
    return -(-size // alignment) * alignment


def _write_padded(out: IO[bytes], data: bytes | memoryview) -> None:
    out.write(data)
    out.write(bytes(_aligned(len(data)) - len(data)))
