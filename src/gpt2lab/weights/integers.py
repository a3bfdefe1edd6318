"""Round matrices to the precisions ``int8`` and ``int4``, in NumPy and to the bit as the native core does.

The weights of each output are divided into blocks of 256 inputs with a float32 scale ``d``. In ``int8`` a weight is
``d·q`` with q in -127 … 127. In ``int4`` it is ``d·s·q``: every group of 32 inputs has a factor s in -15 … 15, and q is
in -8 … 7. q and s are whole numbers. Scales have 16 significant bits, so that these products are exact in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]
    Number = TypeVar("Number", bound=np.generic)

BLOCK, GROUP = 256, 32
TINY = np.float32(1e-30)  # blocks of smaller numbers are zero: the inverse of their scale would overflow
SCALES = [np.float32(scale) / np.float32(120) for scale in (1, 0.95, 0.9, 0.85)]  # of a block whose largest is 1
NEIGHBOURS = [np.float32(1), np.float32(0.9), np.float32(1.1)]
_ROWS = 256  # outputs rounded at a time, so that intermediates stay small


class Integers(NamedTuple):
    """A rounded matrix: whole numbers ``[n_out, n_in]``, times ``scales [n_out, n_blocks]``."""

    q: NDArray[np.int8]
    scales: Array
    factors: NDArray[np.int8] | None = None
    """Of ``int4``: ``[n_out, n_groups]``; None for ``int8``."""

    @property
    def precision(self) -> str:
        """``int8`` or ``int4``."""
        return "int8" if self.factors is None else "int4"

    @property
    def whole(self) -> NDArray[np.int32]:
        """Return the weights without their scales, ``[n_out, n_in]``."""
        q = self.q.astype(np.int32)
        return q if self.factors is None else q * np.repeat(self.factors, GROUP, axis=1)[:, : q.shape[1]]

    def decode(self) -> Array:
        """Return the weights ``[n_out, n_in]``."""
        scales = np.repeat(self.scales, BLOCK, axis=1)[:, : self.q.shape[1]]
        return self.whole.astype(np.float32) * scales


def is_matrix(name: str) -> bool:
    """Return whether a weight of this canonical name is rounded; all others stay float32."""
    return is_output_major(name) or name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight"))


def is_output_major(name: str) -> bool:
    """Return whether a matrix of this canonical name is ``[n_out, n_in]``; linear layers are ``[n_in, n_out]``."""
    return name in ("wte.weight", "lm_head.weight")


def encode(weights: Array, precision: str) -> Integers:
    """Round ``weights [n_out, n_in]`` to ``precision``. Raises ValueError for a number that is not finite."""
    if not np.isfinite(weights).all():
        raise ValueError(f"{precision} is for finite values")
    rounded = _to_int8 if precision == "int8" else _to_int4
    parts = [rounded(weights[first : first + _ROWS]) for first in range(0, len(weights), _ROWS)]
    q, scales, factors = zip(*parts, strict=True)
    whole_factors = None if precision == "int8" else np.concatenate(factors)
    return Integers(np.concatenate(q), np.concatenate(scales), whole_factors)


def _to_int8(weights: Array) -> Integers:
    blocks = padded(weights, BLOCK)
    largest = np.abs(blocks).max(axis=-1)
    scales = np.where(largest < TINY, np.float32(0), _rounded_scale(largest / np.float32(127)))
    q = np.rint(blocks * _inverse(scales)[..., None]).clip(-127, 127)
    return Integers(_unpadded(q, weights).astype(np.int8), scales)


def _to_int4(weights: Array) -> Integers:
    """Try the scale that maps a block's largest magnitude to 15 · 8, and a few smaller ones; take the best."""
    blocks = padded(weights, BLOCK)
    largest = np.abs(blocks).max(axis=-1)  # [n_out, n_blocks]
    relative = (blocks * _inverse(np.where(largest < TINY, np.float32(0), largest))[..., None]).reshape(
        *largest.shape, -1, GROUP
    )
    best, factors, scales = _best_factors(relative, SCALES[0])
    for scale in SCALES[1:]:
        error, found, _ = _best_factors(relative, scale)
        better = error < best
        best = np.where(better, error, best)
        factors = np.where(better[..., None], found, factors)
        scales = np.where(better, scale, scales)
    q = _nearest(relative, factors * scales[..., None])
    n_groups = -(-weights.shape[1] // GROUP)
    return Integers(
        _unpadded(q.reshape(blocks.shape), weights).astype(np.int8),
        np.where(largest < TINY, np.float32(0), _rounded_scale(largest * scales)),
        factors.reshape(len(weights), -1)[:, :n_groups].astype(np.int8),
    )


def _best_factors(relative: Array, scale: np.float32) -> tuple[Array, Array, Array]:
    """Find the factors of blocks ``[n_out, n_blocks, groups, 32]`` for one scale.

    A factor has the sign that maps the group's extreme to -8, the one number without an opposite. Where a neighbour of
    the factor that does this exactly has a smaller error, that is taken. Returns the squared errors
    ``[n_out, n_blocks]``, the factors ``[n_out, n_blocks, groups]``, and the scale for each block.
    """
    extreme = np.take_along_axis(relative, np.abs(relative).argmax(axis=-1)[..., None], axis=-1)[..., 0]
    size = np.abs(extreme) / (scale * np.float32(8))
    sign = np.where(extreme > 0, np.float32(-1), np.float32(1))
    least, factors = None, None
    for neighbour in NEIGHBOURS:
        factor = np.rint(size * neighbour).clip(1, 15) * sign
        error = _error(relative, factor * scale)
        if least is None or factors is None:
            least, factors = error, factor
        else:
            factors = np.where(error < least, factor, factors)
            least = np.where(error < least, error, least)
    assert least is not None and factors is not None
    return _added(least), factors, np.full(least.shape[:2], scale)


def _nearest(relative: Array, steps: Array) -> Array:
    """Return the q of -8 … 7 for which q · step is nearest to each number."""
    q: Array = np.rint(relative * (np.float32(1) / steps)[..., None]).clip(-8, 7)
    return q


def _error(relative: Array, steps: Array) -> Array:
    """Return the squared errors ``[n_out, n_blocks, groups]`` of weights rounded to multiples of a step."""
    rest = relative - _nearest(relative, steps) * steps[..., None]
    return _added(rest * rest)


def _added(x: Array) -> Array:
    """Add the last axis from left to right; ``np.sum`` adds in an order of its own."""
    total = np.zeros(x.shape[:-1], np.float32)
    for i in range(x.shape[-1]):
        total = total + x[..., i]
    return total


def padded(x: NDArray[Number], multiple: int) -> NDArray[Number]:
    """Return ``x [..., k]`` as ``[..., blocks, multiple]``, the last block filled with zeros."""
    rest = [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % multiple)]
    return np.pad(x, rest).reshape(*x.shape[:-1], -1, multiple)


def _unpadded(blocks: Array, like: Array) -> Array:
    whole: Array = blocks.reshape(len(like), -1)[:, : like.shape[1]]
    return whole


def _rounded_scale(x: Array) -> Array:
    """Round positive numbers to 16 significant bits, ties to even."""
    bits = x.view(np.uint32)
    rounded: Array = ((bits + (np.uint32(0x7F) + (bits >> 8 & 1))) & np.uint32(0xFFFFFF00)).view(np.float32)
    return rounded


def _inverse(x: Array) -> Array:
    """Return 1/x, and 0 for 0."""
    inverse: Array = np.divide(np.float32(1), x, out=np.zeros_like(x), where=x > 0)
    return inverse
