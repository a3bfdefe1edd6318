"""Matrix products that keep less for the backward pass than autograd would.

The product is ``before(x) @ weight + bias``, where ``before`` is layer norm, an activation or nothing. Autograd would
keep ``before(x)`` beside ``x``. Here the backward pass computes it again, which costs a few percent of the products'
time and saves a third of a layer's activations. A low-rank adapter (LoRA) adds ``(before(x) @ a) @ b`` in the same
pass. This module knows nothing of layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lab.training.ops.compute import PLAIN, Compute
from gpt2lab.training.ops.norms import layer_norm, norm_gradient, normed
from gpt2lab.training.ops.products import activated, activation_gradient, multiply, sum_rows


class LowRank(NamedTuple):
    """An addition to a weight ``[n_in, n_out]``: ``a`` [n_in, rank] times ``b`` [rank, n_out]."""

    a: Tensor
    b: Tensor
    kept: Tensor | None = None  # bool [..., n_in]: the inputs that dropout keeps; None = all
    scale: float = 1.0  # of the inputs kept


class Before(NamedTuple):
    """The operation on the input of a product: layer norm, an activation, or nothing."""

    norm: nn.LayerNorm | None = None
    activation: str | None = None  # one of config.ACTIVATION_NAMES


NOTHING = Before()
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
}


def affine(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    before: Before = NOTHING,
    adapter: LowRank | None = None,
    compute: Compute = PLAIN,
) -> Tensor:
    """Return ``before(x) @ weight + bias``; ``x`` [..., n_in], ``weight`` [n_in, n_out] -> [..., n_out].

    Layer norm is computed in x's own type. With ``recompute="none"``, autograd keeps ``before(x)``, and PyTorch
    multiplies in its own memory.
    """
    norm, dtype = before.norm, compute.dtype
    if compute.recompute != "none":
        low = adapter or LowRank(None, None)
        vectors = (norm.weight, norm.bias) if norm is not None else (None, None)
        y: Tensor = _Affine.apply(x, *vectors, weight, bias, low.a, low.b, low.kept, low.scale, before, compute)
        return y
    n = layer_norm(x, norm, compute) if norm is not None else x
    n = (n if before.activation is None else _ACTIVATIONS[before.activation](n)).to(dtype)
    y = n @ weight.to(dtype) + bias.to(dtype)
    if adapter is not None:
        y = y + _dropped(n, adapter.kept, adapter.scale) @ adapter.a.to(dtype) @ adapter.b.to(dtype)
    return y


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        norm_weight: Tensor | None,
        norm_bias: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        a: Tensor | None,
        b: Tensor | None,
        kept: Tensor | None,
        scale: float,
        before: Before,
        compute: Compute,
    ) -> Tensor:
        ctx.before, ctx.scale, ctx.compute, dtype = before, scale, compute, compute.dtype
        # Allocate the result before the temporaries, so that they leave no hole between results when freed.
        y = compute.empty(*x.shape[:-1], weight.shape[1], like=x, dtype=dtype)
        rows = y.view(-1, weight.shape[1])
        fused = _is_fused(before, a, compute)
        n = _input(x.reshape(-1, x.shape[-1]), norm_weight, norm_bias, NOTHING if fused else before, compute)
        n = compute.operand(n) if a is None else compute.converted(n, dtype)
        w = compute.operand(weight)
        multiply(n, w, rows, compute, bias=bias.to(w.dtype), gelu=fused)
        if a is not None and b is not None:
            rows.addmm_(_dropped(n, kept, scale) @ a.to(dtype), b.to(dtype))
        needs_input = ctx.needs_input_grad[3] or a is not None or before != NOTHING
        ctx.save_for_backward(x if needs_input else None, norm_weight, norm_bias, weight, a, b, kept)
        return y

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor) -> Any:
        x, norm_weight, norm_bias, weight, a, b, kept = ctx.saved_tensors
        needs, compute, dtype = ctx.needs_input_grad, ctx.compute, ctx.compute.dtype
        shape, d_y = d_outputs[0].shape[:-1], d_outputs[0].reshape(-1, weight.shape[1])
        x = None if x is None else x.reshape(-1, x.shape[-1])
        d_x, d_weight, d_a, d_b = None, None, None, None
        d_bias = sum_rows(d_y, compute) if needs[4] else None
        in_tiles = compute.in_tiles(d_y, weight)
        d_low = None  # [rows, rank]
        if needs[3]:
            d_weight = compute.empty(*weight.shape, like=weight, dtype=None if in_tiles else dtype)
        if needs[3] or a is not None:
            fused = _is_fused(ctx.before, a, compute)
            n = _input(x, norm_weight, norm_bias, NOTHING if fused else ctx.before, compute)
            n = compute.operand(n) if a is None else compute.converted(n, dtype)
            if needs[3]:
                d_weight = compute.converted(multiply(n.t(), d_y, d_weight, compute, gelu=fused), weight.dtype)
            if a is not None:
                n = _dropped(n, kept, ctx.scale)
                d_low = d_y @ b.to(dtype).t()
                d_a, d_b = (n.t() @ d_low).to(a.dtype), ((n @ a.to(dtype)).t() @ d_y).to(b.dtype)
            del n
        d_norm: Sequence[Tensor | None] = (None, None)
        if any(needs[:3]):
            memory = compute.empty(len(d_y), len(weight), like=x if in_tiles and a is None and x is not None else d_y)
            d_x = multiply(d_y, compute.operand(weight).t(), memory, compute)
            if d_low is not None:
                d_n = compute.empty(*d_x.shape, like=d_x)
                d_x += _dropped(torch.mm(d_low, a.to(dtype).t(), out=d_n), kept, ctx.scale)
                del d_n
            if ctx.before.norm is not None and x is not None:
                d_x = compute.converted(d_x, x.dtype)
                d_x, *d_norm = norm_gradient(d_x, x, norm_weight, norm_bias, ctx.before.norm.eps)
            elif ctx.before.activation is not None and x is not None:
                d_x = activation_gradient(
                    x.detach(), d_x, ctx.before.activation, compute
                )  # overwrites x, which nothing needs any more
            d_x = d_x.view(*shape, -1)
        return d_x, *d_norm, d_weight, d_bias, d_a, d_b, None, None, None, None


def _is_fused(before: Before, a: Tensor | None, compute: Compute) -> bool:
    """Return whether GELU is fused into the product, so its result is never stored. An adapter would need it twice."""
    return compute.native and before.activation == "gelu_new" and a is None


def _input(x: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None, before: Before, compute: Compute) -> Tensor:
    """Return the matrix to be multiplied by the weight."""
    if before.norm is not None:
        return normed(x, norm_weight, norm_bias, before.norm.eps, compute)
    if before.activation is not None:
        return activated(x, before.activation, compute.empty(*x.shape, like=x))
    return x


def _dropped(n: Tensor, kept: Tensor | None, scale: float) -> Tensor:
    return n if kept is None else n * kept.view_as(n) * scale
