"""Encode and decode stored numbers, in NumPy: float32, float16, bfloat16, and GGUF's blocks ``q8_0`` and ``q4_0``.

A block holds 32 neighbours of a row after a float16 scale ``d``: ``q8_0`` stores int8 ``q`` for values ``d·q``,
``q4_0`` two 4-bit ``q`` per byte (the first 16 values in the low halves) for values ``d·(q - 8)``. The bits equal those
of llama.cpp's reference (``ggml-quants.c``, ``gguf/quants.py``). This module knows nothing of files or tensor names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2lab.weights.precisions import BLOCK, Precision

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNK = 1 << 16  # values processed at once, so that intermediates stay in the second-level cache


def decode(stored: NDArray[Any], precision: Precision, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Decode items of ``precision.dtype`` to float32 ``[shape]``; float32 itself is returned as a view."""
    if precision.name == "float32":
        return np.ascontiguousarray(stored, dtype=np.float32).reshape(shape)
    values = np.empty((len(stored), precision.block), dtype=np.float32)
    items = stored[:, None] if precision.block == 1 else stored
    step = _CHUNK // precision.block
    for start in range(0, len(stored), step):
        _decode_chunk(items[start : start + step], precision.name, values[start : start + step])
    return values.reshape(shape)


def decode_transposed(stored: NDArray[Any], precision: Precision, rows: int, columns: int) -> NDArray[np.float32]:
    """Decode the items of a matrix ``[rows, columns]`` to float32 ``[columns, rows]``, C-contiguous.

    Works on a block of columns at a time, which is four times faster than transposing the whole decoded matrix.
    """
    values = np.empty((columns, rows), dtype=np.float32)
    items = stored.reshape(rows, columns // precision.block)
    for start in range(0, columns, BLOCK):
        part = items[:, start : start + BLOCK] if precision.block == 1 else items[:, start // BLOCK]
        _decode_chunk(part, precision.name, values[start : start + BLOCK].T)
    return values


def _decode_chunk(stored: NDArray[Any], precision: str, out: NDArray[np.float32]) -> None:
    """Fill ``out``: ``[n, 32]`` from blocks ``[n]``, or any shape from single numbers of that shape."""
    if precision in ("float32", "float16"):
        out[...] = stored
    elif precision == "bfloat16":
        bits = out.view(np.uint32)
        bits[...] = stored
        bits <<= 16
    elif precision == "q8_0":
        out[...] = stored["q"]
        out *= stored["d"].astype(np.float32)[:, None]
    else:
        out[:, : BLOCK // 2] = stored["q"] & 0x0F
        out[:, BLOCK // 2 :] = stored["q"] >> 4
        out -= 8
        out *= stored["d"].astype(np.float32)[:, None]


def encode(values: NDArray[np.float32], precision: Precision) -> NDArray[Any]:
    """Encode float32 values (any shape, rows a multiple of ``block``) as items of ``precision.dtype``, in one row.

    Raises ValueError if a value is not finite in ``precision``.
    """
    if precision.name == "float32":
        return np.ascontiguousarray(values, dtype="<f4").reshape(-1)
    blocks = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, precision.block)
    stored = np.empty(len(blocks), dtype=precision.dtype)
    step = max(1, _CHUNK // precision.block)
    for start in range(0, len(blocks), step):
        _encode_chunk(blocks[start : start + step], precision.name, stored[start : start + step])
    return stored


def _encode_chunk(blocks: NDArray[np.float32], precision: str, out: NDArray[Any]) -> None:
    """Fill ``out [n]`` from ``blocks [n, block]``."""
    if not np.isfinite(blocks).all():
        raise ValueError(f"{precision} is for finite values")
    with np.errstate(over="ignore"):
        if precision == "float16":
            out[:] = blocks[:, 0]
        elif precision == "bfloat16":
            out[:] = _to_bfloat16(blocks[:, 0])
        elif precision == "q8_0":
            _encode_q8_0(blocks, out)
        else:
            _encode_q4_0(blocks, out)
    if precision == "bfloat16":
        overflow = ((out & 0x7F80) == 0x7F80).any()
    else:
        overflow = not np.isfinite(out if precision == "float16" else out["d"]).all()
    if overflow:
        raise ValueError(f"values up to {np.abs(blocks).max():.3g} are too large for {precision}")


def _to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Return the upper half of each float32, rounded to nearest, ties to even."""
    bits = values.view(np.uint32)
    rounded: NDArray[np.uint32] = (bits + (np.uint32(0x7FFF) + (bits >> 16 & 1))) >> 16
    return rounded


def _encode_q8_0(blocks: NDArray[np.float32], out: NDArray[Any]) -> None:
    scale = np.abs(blocks).max(axis=1) / np.float32(127)
    scaled = blocks * _inverse(scale)[:, None]
    magnitude = np.abs(scaled)
    whole = np.floor(magnitude)
    rounded = whole + np.floor(2 * (magnitude - whole))  # halves away from zero, as C's roundf
    out["d"] = scale
    out["q"] = np.copysign(rounded, scaled)


def _encode_q4_0(blocks: NDArray[np.float32], out: NDArray[Any]) -> None:
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1)[:, None], axis=1)[:, 0]
    scale = largest / np.float32(-8)  # the largest magnitude gets q = 0, the one value without a counterpart
    scaled = blocks * _inverse(scale)[:, None]
    q = (scaled + np.float32(8.5)).astype(np.uint8).clip(0, 15)
    out["d"] = scale
    out["q"] = q[:, : BLOCK // 2] | q[:, BLOCK // 2 :] << 4


def _inverse(scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1/scale, and 0 where that is infinite: in blocks at or near zero, whose float16 scale is 0."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse: NDArray[np.float32] = np.float32(1) / scale
    inverse[np.isinf(inverse)] = 0
    return inverse
