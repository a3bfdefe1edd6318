"""Causal self-attention of whole sequences, by the native core or by PyTorch.

Both hold the scores of only a few rows at a time, and compute them again in the backward pass (Dao et al.,
FlashAttention, 2022). This module knows nothing of layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab.training.ops.compute import PLAIN, Compute
from gpt2lab.training.ops.products import core


def causal_attention(qkv: Tensor, n_head: int, compute: Compute = PLAIN, scale: float | None = None) -> Tensor:
    """Attend: ``[batch, time, 3 * n_embd]`` of queries, keys and values side by side -> ``[batch, time, n_embd]``.

    The products of queries and keys are multiplied by ``scale`` (None: 1/√head_dim) before the softmax.

    The native core's threads take one head at a time. PyTorch computes everything that is not on a CPU, or has fewer
    heads than there are threads. The core's backward pass overwrites ``qkv`` with its gradient, so nothing
    else may need ``qkv``.
    """
    batch, time, width = qkv.shape
    split = qkv.view(batch, time, 3, n_head, width // 3 // n_head)
    suits = qkv.dtype == compute.dtype and qkv.device.type == "cpu" and batch * n_head >= torch.get_num_threads()
    if compute.native and suits and split.is_contiguous():
        out: Tensor = _Native.apply(split, scale, compute)
        return out.view(batch, time, width // 3)
    q, k, v = (each.transpose(1, 2) for each in split.unbind(2))  # [batch, n_head, time, head_dim]
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
    return mixed.transpose(1, 2).reshape(batch, time, width // 3)


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, scale: float | None, compute: Compute) -> Tensor:
        ctx.scale, ctx.compute = scale, compute
        batch, time, _, n_head, head_dim = qkv.shape
        out = compute.empty(batch, time, n_head, head_dim, like=qkv)
        log_sums = qkv.new_empty(batch, n_head, time, dtype=torch.float32)
        attend = core().attend_tiles if compute.in_tiles(qkv) else core().attend
        attend(qkv.detach(), out, log_sums, scale)
        ctx.save_for_backward(qkv, log_sums)
        return out

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor, None, None]:
        qkv, log_sums = ctx.saved_tensors
        d_qkv = qkv.detach()
        attend_backward = core().attend_tiles_backward if ctx.compute.in_tiles(qkv) else core().attend_backward
        attend_backward(d_qkv, log_sums, d_outputs[0].contiguous().detach(), d_qkv, ctx.scale)
        return d_qkv, None, None
