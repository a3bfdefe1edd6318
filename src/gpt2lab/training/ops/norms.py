"""Layer norm of rows and its gradient, by the native core or by PyTorch. This module knows nothing of layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gpt2lab.training.ops.compute import PLAIN, Compute
from gpt2lab.training.ops.products import core


def normed(x: Tensor, weight: Tensor, bias: Tensor, eps: float, compute: Compute) -> Tensor:
    """Return the layer norm of each row of ``x`` [..., n]; ``weight`` and ``bias`` [n]. Outside autograd."""
    if not _suits(x, weight, bias):
        return torch.native_layer_norm(x, x.shape[-1:], weight, bias, eps)[0]
    out = compute.empty(*x.shape, like=x)
    rows = (-1, x.shape[-1])
    core().layer_norm(x.detach().view(rows), weight.detach(), bias.detach(), eps, out.view(rows))
    return out


def norm_gradient(d: Tensor, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of ``x`` [rows, n], ``weight`` and ``bias`` [n] from the result's, ``d`` [rows, n].

    The first may overwrite ``d``. Mean and deviation are computed again, which costs the core next to nothing.
    """
    if not _suits(x, weight, bias, d):
        statistics = torch.native_layer_norm(x, x.shape[-1:], weight, bias, eps)[1:]
        three: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_layer_norm_backward(
            d, x, x.shape[-1:], *statistics, weight, bias, [True] * 3
        )
        return three
    d_weight, d_bias = torch.empty_like(weight), torch.empty_like(bias)
    core().layer_norm_gradient(x.detach(), weight.detach(), eps, d.detach(), d_weight, d_bias)
    return d, d_weight, d_bias


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, compute: Compute) -> Tensor:
        ctx.eps, ctx.compute = eps, compute
        ctx.save_for_backward(x, weight, bias)
        return normed(x, weight, bias, eps, compute)

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor) -> Any:
        x, weight, bias = ctx.saved_tensors
        d = ctx.compute.empty(*x.shape, like=x).copy_(d_outputs[0])  # a copy: autograd's own must not change
        rows = (-1, x.shape[-1])
        d_x, d_weight, d_bias = norm_gradient(d.view(rows), x.reshape(rows), weight, bias, ctx.eps)
        return d_x.view(x.shape), d_weight, d_bias, None, None


def layer_norm(x: Tensor, norm: nn.LayerNorm, compute: Compute = PLAIN) -> Tensor:
    """Return ``norm(x)``, differentiable; ``x`` [..., n]."""
    y: Tensor = _LayerNorm.apply(x, norm.weight, norm.bias, norm.eps, compute)
    return y


def _suits(*tensors: Tensor) -> bool:
    return all(x.dtype == torch.float32 and x.device.type == "cpu" and x.is_contiguous() and x.numel() for x in tensors)
