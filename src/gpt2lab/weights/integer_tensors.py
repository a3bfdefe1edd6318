"""Matrices in int8 and int4 in a safetensors file: the numbers of :mod:`gpt2lab.weights.integers`, as they are.

The parts of a matrix have its own shape, but for the axis of the inputs (the first; of ``wte.weight`` and
``lm_head.weight`` the second). A weight is its whole number, times its group's factor in int4, times its block's scale.

* ``NAME`` holds the whole numbers q. In int8 they are -127 … 127, I8. In int4 they are -8 … 7, U8: a byte holds q + 8
  of two inputs, the first in its low half.
* ``NAME.factors``, in int4 only, has a factor in -15 … 15 for each group of 32 inputs, I8.
* ``NAME.scales`` has a scale for each block of 256 inputs, F32.

All other tensors are F32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2lab.errors import CheckpointError
from gpt2lab.weights.checkpoint import Checkpoint, LazyTensors, StoredTensor, tensor_shapes
from gpt2lab.weights.integers import BLOCK, GROUP, Integers, encode, is_matrix, is_output_major
from gpt2lab.weights.precisions import PRECISIONS
from gpt2lab.weights.safetensors_file import INT8, UINT8, SafeTensor, read_safetensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpt2lab.weights.writing import NewTensor

    Items = NDArray[Any]

_ZERO = 8  # int4 stores q + 8
_FLOAT32 = PRECISIONS["float32"]
_PARTS = {
    "int8": {"": (1, INT8), ".scales": (BLOCK, _FLOAT32)},
    "int4": {"": (2, UINT8), ".factors": (GROUP, INT8), ".scales": (BLOCK, _FLOAT32)},
}
"""Precision → what a part's name ends with → the inputs of an item, and its type."""


def read_integers(path: Path, precision: str) -> dict[str, tuple[StoredTensor, str]]:
    """Return name → tensor, decoded to float32, and precision. Raises :class:`CheckpointError` if one does not fit."""
    tensors = read_safetensors(path)
    endings = [ending for ending in _PARTS[precision] if ending]
    stored = {}
    for name, tensor in tensors.items():
        canonical = name.removeprefix("transformer.")
        ending = next((ending for ending in endings if name.endswith(ending)), None)
        if is_matrix(canonical):
            stored[name] = _stored(name, tensors, _input_axis(canonical), precision), precision
        elif ending is None:
            how, kind = tensor.stored(name)
            stored[name] = how, kind.name
        elif name.removesuffix(ending) not in tensors:
            raise CheckpointError(f"{path}: tensor {name} belongs to no matrix")
    return stored


def _stored(name: str, tensors: Mapping[str, SafeTensor], axis: int, precision: str) -> StoredTensor:
    path, shape = tensors[name].file.path, tensors[name].shape
    if len(shape) != 2:
        raise CheckpointError(f"{path}: {name} of shape {list(shape)} is not a matrix")
    parts = _PARTS[precision]
    shape = _with(shape, axis, shape[axis] * parts[""][0])
    readers = {}
    for ending, (inputs, kind) in parts.items():
        part, fitting = tensors.get(name + ending), _with(shape, axis, -(-shape[axis] // inputs))
        if part is None:
            raise CheckpointError(f"{path}: tensor {name}{ending} is missing")
        if part.shape != fitting:
            raise CheckpointError(f"{path}: {name}{ending} has shape {list(part.shape)}, not {list(fitting)}")
        readers[ending] = part.items(name + ending, kind)

    def integers() -> Integers:
        q, *factors, scales = (_outputs_first(read(), axis) for read in readers.values())
        if precision == "int4":
            q = np.stack([q & 15, q >> 4], axis=-1).reshape(len(q), -1).astype(np.int8) - np.int8(_ZERO)
        read = Integers(np.ascontiguousarray(q), np.ascontiguousarray(scales), *map(np.ascontiguousarray, factors))
        _check(path, name, read)
        return read

    return StoredTensor(shape, lambda: np.ascontiguousarray(_outputs_first(integers().decode(), axis)), integers)


def _check(path: Path, name: str, integers: Integers) -> None:
    if (integers.q == -128).any():
        raise CheckpointError(f"{path}: {name} holds -128, but int8 has -127 to 127: the file is damaged")
    if integers.factors is not None and (np.abs(integers.factors.astype(np.int32)) > 15).any():
        raise CheckpointError(f"{path}: {name}.factors has numbers beyond -15 … 15: the file is damaged")
    with np.errstate(over="ignore", invalid="ignore"):
        largest = integers.scales * np.float32(127)
        if not np.isfinite(largest).all() and not np.isfinite(integers.decode()).all():
            raise CheckpointError(
                f"{path}: tensor {name}.scales has values that are NaN or infinite, or too large: the file is damaged"
            )


def integer_tensors(checkpoint: Checkpoint, precision: str, stored_name: Callable[[str], str]) -> list[NewTensor]:
    """Return the tensors of a file in ``precision``, in the order of the forward pass.

    Each is rounded when it is written, but for one that the checkpoint itself holds in ``precision``. ``stored_name``
    returns the name in the file of a canonical one. Raises :class:`CheckpointError` for int4 with an odd width.
    """
    from gpt2lab.weights.writing import NewTensor, encoded  # readers start without it

    rounded = lru_cache(maxsize=1)(partial(_rounded, checkpoint, precision))  # all parts are written from it
    tensors = []
    for name, shape in tensor_shapes(checkpoint.config).items():
        written = stored_name(name)
        if not is_matrix(name):
            tensors.append(NewTensor(written, shape, _FLOAT32, partial(encoded, checkpoint, name, _FLOAT32)))
            continue
        axis = _input_axis(name)
        if precision == "int4" and shape[axis] % 2:
            raise CheckpointError(f"{checkpoint.path}: {name} has {shape[axis]} inputs, but int4 needs an even number")
        for ending, (inputs, kind) in _PARTS[precision].items():
            part_shape = _with(shape, axis, -(-shape[axis] // inputs))
            tensors.append(NewTensor(written + ending, part_shape, kind, partial(_items, rounded, name, ending)))
    return tensors


def _rounded(checkpoint: Checkpoint, precision: str, name: str) -> Integers:
    tensors = checkpoint.tensors
    stored = tensors.integers(name, precision) if isinstance(tensors, LazyTensors) else None
    if stored is not None:
        return stored
    try:
        return encode(np.ascontiguousarray(_outputs_first(tensors[name], _input_axis(name))), precision)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path}: {name} cannot be stored: {error}") from None


def _items(rounded: Callable[[str], Integers], name: str, ending: str) -> Items:
    """Return a part of a matrix as it is stored, flat."""
    integers = rounded(name)
    part: Items | None = {"": integers.q, ".factors": integers.factors, ".scales": integers.scales}[ending]
    assert part is not None
    if ending == "" and integers.factors is not None:
        nibbles = (part + np.int8(_ZERO)).astype(np.uint8)
        part = nibbles[:, ::2] | nibbles[:, 1::2] << 4
    return np.ascontiguousarray(_outputs_first(part, _input_axis(name))).reshape(-1)


def _outputs_first(matrix: Items, axis: int) -> Items:
    """Return a matrix whose inputs are the axis ``axis`` as ``[n_out, …]``, or one like that with this axis."""
    return matrix if axis == 1 else matrix.T


def _with(shape: tuple[int, ...], axis: int, length: int) -> tuple[int, ...]:
    return tuple(length if i == axis else n for i, n in enumerate(shape))


def _input_axis(name: str) -> int:
    """Return the axis of a matrix's inputs."""
    return int(is_output_major(name))
