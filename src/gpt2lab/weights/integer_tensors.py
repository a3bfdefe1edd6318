"""Matrices in int8 in a safetensors file: the whole numbers and scales of :mod:`gpt2lab.weights.integers`.

A matrix is two tensors. ``NAME`` holds whole numbers in -127 … 127, I8 in the matrix's own shape. ``NAME.scales`` is
F32 in the same shape, but for the axis of the inputs, which has one scale for each block of 256: ``[blocks, n_out]``,
and ``[n_vocab, blocks]`` for ``wte.weight`` and ``lm_head.weight``. A weight is its number times its block's scale.
Rounding these products to int8 again gives the same numbers and scales. All other tensors are F32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2lab.errors import CheckpointError
from gpt2lab.weights.checkpoint import Checkpoint, StoredTensor, Tensor, tensor_shapes
from gpt2lab.weights.integers import BLOCK, Integers, encode, is_matrix, is_output_major
from gpt2lab.weights.quantization import PRECISIONS
from gpt2lab.weights.safetensors_file import INT8, SafeTensor, read_safetensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpt2lab.weights.writing import NewTensor

    Items = NDArray[Any]

_SCALES = ".scales"


def read_int8(path: Path) -> dict[str, tuple[StoredTensor, str]]:
    """Return name → tensor, decoded to float32, and precision. Raises :class:`CheckpointError` if one does not fit."""
    tensors = read_safetensors(path)
    stored = {}
    for name, tensor in tensors.items():
        canonical = name.removeprefix("transformer.")
        if is_matrix(canonical):
            if name + _SCALES not in tensors:
                raise CheckpointError(f"{path}: tensor {name}{_SCALES} is missing")
            stored[name] = _stored(name, tensor, tensors[name + _SCALES], _input_axis(canonical)), "int8"
        elif not canonical.endswith(_SCALES):
            how, precision = tensor.stored(name)
            stored[name] = how, precision.name
        elif name.removesuffix(_SCALES) not in tensors:
            raise CheckpointError(f"{path}: tensor {name} belongs to no matrix")
    return stored


def _stored(name: str, numbers: SafeTensor, scales: SafeTensor, axis: int) -> StoredTensor:
    path, shape = numbers.file.path, numbers.shape
    if len(shape) != 2:
        raise CheckpointError(f"{path}: {name} of shape {list(shape)} is not a matrix")
    fitting = _scales_shape(shape, axis)
    if scales.shape != fitting:
        raise CheckpointError(f"{path}: {name}{_SCALES} has shape {list(scales.shape)}, not {list(fitting)}")
    read_numbers, read_scales = numbers.items(name, INT8), scales.items(name + _SCALES, PRECISIONS["float32"])

    def read() -> Tensor:
        whole = read_numbers()
        if (whole == -128).any():
            raise CheckpointError(f"{path}: {name} holds -128, but int8 has -127 to 127: the file is damaged")
        return _decoded(whole, read_scales(), axis)

    return StoredTensor(shape, read)


def _decoded(whole: Items, scales: Items, axis: int) -> Tensor:
    """Multiply whole numbers by their scales, block by block; numbers too large become infinite."""
    values: Tensor = whole.astype(np.float32)
    inputs_first = values if axis == 0 else values.T  # a view
    with np.errstate(over="ignore", invalid="ignore"):
        for block, scale in enumerate(scales if axis == 0 else scales.T):
            inputs_first[block * BLOCK : (block + 1) * BLOCK] *= scale
    return values


def int8_tensors(checkpoint: Checkpoint, stored_name: Callable[[str], str]) -> list[NewTensor]:
    """Return the tensors of a file in int8, in the order of the forward pass. Each is rounded when it is written.

    ``stored_name`` returns the name in the file of a canonical one.
    """
    from gpt2lab.weights.writing import NewTensor, encoded  # readers start without it

    float32 = PRECISIONS["float32"]
    rounded = lru_cache(maxsize=1)(partial(_rounded, checkpoint))  # its numbers are written, then its scales
    tensors = []
    for name, shape in tensor_shapes(checkpoint.config).items():
        written = stored_name(name)
        if not is_matrix(name):
            tensors.append(NewTensor(written, shape, float32, partial(encoded, checkpoint, name, float32)))
            continue
        axis = _input_axis(name)
        tensors.append(NewTensor(written, shape, INT8, _part(rounded, name, "q", axis)))
        scales = _part(rounded, name, "scales", axis)
        tensors.append(NewTensor(written + _SCALES, _scales_shape(shape, axis), float32, scales))
    return tensors


def _rounded(checkpoint: Checkpoint, name: str) -> Integers:
    values = checkpoint.tensors[name]
    try:
        return encode(np.ascontiguousarray(values if _input_axis(name) == 1 else values.T), "int8")
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path}: {name} cannot be stored: {error}") from None


def _part(rounded: Callable[[str], Integers], name: str, part: str, axis: int) -> Callable[[], Items]:
    """Return a function that lays out the numbers or scales ``[n_out, …]`` of a matrix as they are stored."""

    def items() -> Items:
        numbers: Items = getattr(rounded(name), part)
        return np.ascontiguousarray(numbers if axis == 1 else numbers.T).reshape(-1)

    return items


def _scales_shape(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """Return the shape of a matrix's scales."""
    return tuple(-(-n // BLOCK) if i == axis else n for i, n in enumerate(shape))


def _input_axis(name: str) -> int:
    """Return the axis of a matrix's inputs."""
    return int(is_output_major(name))
