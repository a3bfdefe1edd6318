"""Rounding of matrices to int4 in PyTorch, bit for bit as :mod:`gpt2lab.weights.integers` does.

It exists because training rounds every matrix in every update: it uses all threads, or a GPU, and keeps groups of 32
inputs apart in memory, so sums over a group are sums of rows. Every operation is one of those in ``integers.encode``,
in its order; none is fused.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gpt2lab.weights.integers import BLOCK, GROUP, NEIGHBOURS, SCALES, TINY

_GROUPS = BLOCK // GROUP
_OUTPUTS = 512  # rounded at a time, so that intermediates stay in the second-level cache


class _Found(NamedTuple):
    """Squared errors ``[outputs]`` and factors ``[groups, outputs]`` of a block."""

    error: Tensor
    factors: Tensor


@torch.no_grad()
def round_int4(weights: Tensor, out: Tensor) -> Tensor:
    """Write the values of ``weights`` ``[n_in, n_out]`` in int4 to ``out``, float32 of the same shape; return it."""
    n_in = len(weights)
    for first in range(0, n_in, BLOCK):
        inputs = slice(first, min(first + BLOCK, n_in))
        for begin in range(0, weights.shape[1], _OUTPUTS):
            outputs = slice(begin, begin + _OUTPUTS)
            block = weights[inputs, outputs]
            rounded = _rounded(_padded(block.contiguous()))
            out[inputs, outputs] = rounded[: len(block)]
    return out


def _padded(block: Tensor) -> Tensor:
    if len(block) == BLOCK:
        return block
    return torch.cat([block, block.new_zeros(BLOCK - len(block), block.shape[1])])


def _rounded(block: Tensor) -> Tensor:
    """Return the values of a block ``[256, outputs]`` in int4: see ``integers._to_int4``."""
    largest = block.abs().amax(0)  # [outputs]
    is_zero = largest < TINY
    inverse = torch.where(is_zero, 0.0, 1.0 / torch.where(is_zero, 1.0, largest))
    relative = (block * inverse).view(_GROUPS, GROUP, -1)
    at = relative.abs().argmax(1, keepdim=True)  # the first of several, as in NumPy
    extreme = relative.gather(1, at).squeeze(1)  # [groups, outputs]
    scales = torch.full_like(largest, float(SCALES[0]))
    best = _best_factors(relative, extreme, float(SCALES[0]))
    for scale in map(float, SCALES[1:]):
        found = _best_factors(relative, extreme, scale)
        better = found.error < best.error
        best = _Found(torch.where(better, found.error, best.error), torch.where(better, found.factors, best.factors))
        scales = torch.where(better, scale, scales)
    whole = _nearest(relative, best.factors * scales) * best.factors[:, None] + 0.0  # makes -0 a 0
    stored = torch.where(is_zero, 0.0, _rounded_scale(largest * scales))
    return (whole * stored).view(BLOCK, -1)


def _best_factors(relative: Tensor, extreme: Tensor, scale: float) -> _Found:
    """Find the factors of a block ``[groups, 32, outputs]`` for one scale: see ``integers._best_factors``."""
    size = extreme.abs() / torch.full_like(extreme[:1], scale * 8)  # a tensor: CUDA multiplies by a scalar's inverse
    sign = torch.where(extreme > 0, -1.0, 1.0)
    least = factors = None
    for neighbour in map(float, NEIGHBOURS):
        factor = (size * neighbour).round_().clamp_(1, 15) * sign
        error = _error(relative, factor * scale)
        if least is None or factors is None:
            least, factors = error, factor
        else:
            factors = torch.where(error < least, factor, factors)
            least = torch.where(error < least, error, least)
    assert least is not None and factors is not None
    return _Found(_added(least), factors)


def _nearest(relative: Tensor, steps: Tensor) -> Tensor:
    return (relative * (1.0 / steps)[:, None]).round_().clamp_(-8, 7)


def _error(relative: Tensor, steps: Tensor) -> Tensor:
    """Return the squared errors ``[groups, outputs]`` of weights rounded to multiples of a step."""
    rest = relative - _nearest(relative, steps).mul_(steps[:, None])
    return _added(rest.mul_(rest).transpose(0, 1))


def _added(x: Tensor) -> Tensor:
    """Add the rows of ``x`` from first to last."""
    total = x[0].clone()
    for row in x[1:]:
        total += row
    return total


def _rounded_scale(x: Tensor) -> Tensor:
    """Round positive numbers to 16 significant bits, ties to even."""
    bits = x.view(torch.int32)
    return ((bits + (0x7F + (bits >> 8 & 1))) & ~0xFF).view(torch.float32)
