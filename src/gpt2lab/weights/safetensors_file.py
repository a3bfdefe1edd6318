"""Read and write the safetensors container: a JSON directory of names, dtypes and offsets, then the bytes.

https://github.com/huggingface/safetensors#format. The ``safetensors`` package is not used, because its NumPy API has no
bfloat16 and its writer needs every tensor in memory at once. What the package refuses is refused here, and a few more
headers that only a damaged file has; tests compare the two. This module knows nothing of GPT-2.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from gpt2lab.errors import CheckpointError
from gpt2lab.weights.checkpoint import MappedFile, StoredTensor, Tensor, parse_json
from gpt2lab.weights.precisions import PRECISIONS, Precision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpt2lab.weights.writing import NewTensor

_MAX_DIMENSIONS = 8  # the product of a list of any length could take hours
_MAX_HEADER = 100_000_000  # bytes; the limit that the safetensors package sets too
_BITS: Mapping[str, int] = {
    "F4": 4,
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
"""The dtypes of the format, and the bits that a value takes."""
_DTYPES = {"F32": PRECISIONS["float32"], "F16": PRECISIONS["float16"], "BF16": PRECISIONS["bfloat16"]}
INT8, UINT8 = Precision("int8", "i1", 1), Precision("uint8", "u1", 1)
"""Whole numbers, which mean weights only together with scales: see :mod:`gpt2lab.weights.integer_tensors`."""
FLOAT64 = Precision("float64", "<f8", 8)
"""Read only, and rounded to float32."""
_NAME_OF = {precision.name: dtype for dtype, precision in _DTYPES.items()} | {
    INT8.name: "I8",
    UINT8.name: "U8",
    FLOAT64.name: "F64",
}


@dataclass(frozen=True)
class SafeTensor:
    """A tensor's place in a file; ``start`` counts from the start of the file."""

    file: MappedFile
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    def stored(self, name: str) -> tuple[StoredTensor, Precision]:
        """Return a reader of the tensor and its precision. Raises :class:`CheckpointError` for an unsupported dtype."""
        precision = FLOAT64 if self.dtype == "F64" else _DTYPES.get(self.dtype)
        if precision is None:
            raise CheckpointError(
                f"{self.file.path}: {name} has dtype {self.dtype}, which is not one of {', '.join(_DTYPES)}, F64"
            )
        kind, items, shape = precision, self.items(name, precision), self.shape

        def read() -> Tensor:
            import numpy as np

            from gpt2lab.weights.quantization import decode

            if kind is FLOAT64:
                with np.errstate(over="ignore"):  # an infinite value is reported with the tensor's name
                    return items().astype(np.float32)
            return decode(items().reshape(-1), kind, shape)

        return StoredTensor(shape, read), precision

    def items(self, name: str, precision: Precision) -> Callable[[], NDArray[Any]]:
        """Return a reader of the stored items, ``[shape]``. Raises :class:`CheckpointError` for another dtype."""
        if self.dtype != _NAME_OF[precision.name]:
            raise CheckpointError(f"{self.file.path}: {name} has dtype {self.dtype}, not {_NAME_OF[precision.name]}")
        return lambda: self.file.array(self.start, precision.dtype, self.shape)


def read_safetensors(path: Path) -> dict[str, SafeTensor]:
    """Return the tensors of a file by name; they lie inside it and do not overlap. Reads no tensor data."""
    file = MappedFile(path)
    header, _, start = _header(file)
    tensors = {name: _tensor(file, name, info, start) for name, info in header.items()}
    _check_covered(file, start, tensors)
    return tensors


def read_metadata(path: Path) -> dict[str, str]:
    """Return the texts that stand beside the tensors of a file."""
    return _header(MappedFile(path))[1]


def _header(file: MappedFile) -> tuple[dict[str, Any], dict[str, str], int]:
    """Return the entries of the tensors, the metadata, and where the data starts."""
    size = int.from_bytes(file.part(0, 8), "little")
    if size > _MAX_HEADER:
        raise CheckpointError(f"{file.path}: not a safetensors file (its header claims {size} bytes)")
    header = parse_json(file.path, bytes(file.part(8, size)))
    try:
        json.dumps(header, ensure_ascii=False, allow_nan=False).encode()  # Python's parser takes more than JSON has
    except ValueError as error:
        raise CheckpointError(f"{file.path}: the header is not valid JSON ({error})") from None
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict | None):
        raise CheckpointError(f"{file.path}: __metadata__ must be an object, not {metadata!r}")
    metadata = metadata or {}
    for name, text in metadata.items():
        if not isinstance(text, str):
            raise CheckpointError(
                f"{file.path}: every value of __metadata__ must be a string, but {name!r} is {text!r}"
            )
    return header, metadata, 8 + size


def _check_covered(file: MappedFile, start: int, tensors: Mapping[str, SafeTensor]) -> None:
    """Check that the tensors cover the data, which starts at ``start``: they share no byte, and leave none out."""
    reached = start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].size)):
        if tensor.start < reached:
            raise CheckpointError(f"{file.path}: two tensors share the bytes at {tensor.start}, where {name} starts")
        if tensor.start > reached:
            raise CheckpointError(f"{file.path}: bytes {reached} to {tensor.start}, before {name}, are in no tensor")
        reached += tensor.size
    if reached < len(file):
        raise CheckpointError(f"{file.path}: {len(file) - reached} bytes after the last tensor are in no tensor")


def _tensor(file: MappedFile, name: str, info: Any, data_start: int) -> SafeTensor:
    if isinstance(info, dict):
        dtype, shape, offsets = info.get("dtype"), _counts(info.get("shape")), _counts(info.get("data_offsets"))
        fits = shape is not None and len(shape) <= _MAX_DIMENSIONS
        if isinstance(dtype, str) and shape is not None and fits and offsets is not None and len(offsets) == 2:
            start, size = data_start + offsets[0], offsets[1] - offsets[0]
            file.part(start, size)
            if dtype not in _BITS:
                raise CheckpointError(f"{file.path}: {name} has dtype {dtype}, which the format does not have")
            if _bits(shape, dtype) != 8 * size:
                raise CheckpointError(f"{file.path}: {name} of shape {list(shape)} cannot take {size} bytes")
            return SafeTensor(file, dtype, shape, start, size)
    raise CheckpointError(f"{file.path}: the header's entry for {name!r} is malformed")


def _bits(shape: tuple[int, ...], dtype: str) -> int:
    """Return the bits that a tensor takes; -1 if counting them overflows 64 bits, which no file means."""
    bits = 1
    for length in (*shape, _BITS[dtype]):
        bits *= length
        if bits >= 2**64:
            return -1
    return bits


def _counts(value: Any) -> tuple[int, ...] | None:
    """Return a JSON list of non-negative whole numbers as a tuple; None for anything else."""
    good = isinstance(value, list) and all(type(number) is int and 0 <= number < 2**63 for number in value)
    return tuple(value) if good else None


def write_safetensors(out: IO[bytes], tensors: list[NewTensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write ``tensors`` in the order given, one at a time. By default, the metadata is that of PyTorch's files."""
    header: dict[str, Any] = {"__metadata__": metadata or {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        end = offset + tensor.precision.n_bytes(math.prod(tensor.shape))
        dtype = _NAME_OF[tensor.precision.name]
        header[tensor.name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # align the start of the data
    out.write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors:
        out.write(tensor.items().view("u1").data)
