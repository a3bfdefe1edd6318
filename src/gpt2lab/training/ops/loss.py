"""Cross-entropy over a large vocabulary, without ever holding all its logits.

The output matrix is most of a small GPT-2's arithmetic, and ``[batch*time, 50257]`` logits, probabilities and
gradients would be most of its memory. Here rows are processed in chunks: one reused buffer holds a chunk's logits, then
its probabilities, then their gradient, and the forward pass already computes the final gradients. The output matrix is
also the embedding: :class:`TiedGradient` lets both uses add to one gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gpt2lab.training.ops.compute import PLAIN, Compute
from gpt2lab.training.ops.products import core, multiply

CHUNK_ROWS = 256  # each chunk reads the matrix twice and its gradient once; memory.estimate() copies both constants
FROZEN_CHUNK_ROWS = 192  # for a matrix without a gradient, which allows smaller chunks


class TiedGradient:
    """The gradient of a matrix that serves as output matrix and as embedding, passed from one use to the other.

    Autograd would make one gradient [n_vocab, n_embd] for each use and add them. The output matrix is last in the
    forward pass and so first in the backward pass: it leaves its gradient here, and the embedding adds its rows and
    returns the sum.
    """

    def __init__(self) -> None:
        self._gradient: Tensor | None = None

    def put(self, gradient: Tensor) -> None:
        """Store the output matrix's gradient."""
        self._gradient = gradient

    def take(self, weight: Tensor) -> Tensor:
        """Return the stored gradient, or zeros, in ``weight``'s shape; the caller may change it."""
        gradient, self._gradient = self._gradient, None
        return torch.zeros_like(weight) if gradient is None else gradient


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, tokens: Tensor, tied: TiedGradient, compute: Compute) -> Tensor:
        ctx.tied = tied
        ctx.save_for_backward(weight, tokens)
        rows = compute.empty(*tokens.shape, weight.shape[1], like=weight)
        torch.index_select(weight, 0, tokens.flatten(), out=rows.view(-1, weight.shape[1]))
        return rows

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        weight, tokens = ctx.saved_tensors
        d_weight = ctx.tied.take(weight)
        return d_weight.index_add_(0, tokens.flatten(), d_outputs[0].flatten(0, -2)), None, None, None


def embedding(tokens: Tensor, weight: Tensor, tied: TiedGradient, compute: Compute) -> Tensor:
    """Return ``weight[tokens]``, int64 [...] -> [..., n_embd]; its gradient is added to the one in ``tied``."""
    rows: Tensor = _Embedding.apply(weight, tokens, tied, compute)
    return rows


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        rows: Tensor | None,
        tied: TiedGradient | None,
        with_gradient: bool,
        compute: Compute,
    ) -> Tensor:
        ctx.tied = tied
        needs_hidden, needs_weight = (with_gradient and need for need in ctx.needs_input_grad[:2])
        w = compute.operand(weight)
        ctx.d_hidden = compute.empty(*hidden.shape, like=hidden).zero_() if needs_hidden else None
        count = len(hidden) if rows is None else len(rows)
        ctx.d_weight = compute.empty(*weight.shape, like=weight) if needs_weight else None
        if needs_weight and not count:
            ctx.d_weight.zero_()
        most = CHUNK_ROWS if needs_weight else FROZEN_CHUNK_ROWS
        buffer = compute.empty(min(most, count), len(weight), like=hidden, dtype=compute.dtype)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, count, most):
            end = min(start + most, count)
            which = slice(start, end) if rows is None else rows[start:end]
            h, chunk = compute.operand(hidden[which]), buffer[: end - start]
            multiply(h, w.t(), chunk, compute)  # logits [chunk, n_vocab]
            total += _losses(chunk, targets[which], compute)  # chunk: d loss / d logits
            if ctx.d_hidden is not None:
                ctx.d_hidden[which] = multiply(chunk, w, torch.empty_like(h), compute).to(hidden.dtype)
            if ctx.d_weight is not None:
                _product_into(ctx.d_weight, chunk.t(), h, compute, add=start > 0)
        return total

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor) -> Any:
        scale, d_hidden, d_weight = d_outputs[0], ctx.d_hidden, ctx.d_weight
        ctx.d_hidden = ctx.d_weight = None  # changed in place below, so they serve only once
        if d_hidden is not None:
            d_hidden.mul_(scale)
        if d_weight is not None:
            d_weight.mul_(scale)
            if ctx.tied is not None:
                ctx.tied.put(d_weight)
                d_weight = None
        return d_hidden, d_weight, None, None, None, None, None


def _losses(logits: Tensor, targets: Tensor, compute: Compute) -> Tensor:
    """Replace ``logits`` [rows, n_vocab] by the gradient of the sum of their losses, which is returned."""
    if compute.in_tiles(logits):
        losses = torch.empty(len(logits))
        core().cross_entropy(logits, targets, losses)
        return losses.sum()
    chosen = targets[:, None]
    torch.softmax(logits, -1, out=logits)  # probabilities
    p = logits.gather(1, chosen)
    logits.scatter_(1, chosen, p - 1)
    return -p.float().clamp_min(torch.finfo(torch.float32).tiny).log().sum()


def _product_into(total: Tensor, one: Tensor, other: Tensor, compute: Compute, *, add: bool) -> None:
    if one.dtype == total.dtype or compute.in_tiles(one, other, total):
        multiply(one, other, total, compute, add=add)
        return
    product = torch.mm(one, other, out=compute.empty(*total.shape, like=one))
    if add:
        total += product
    else:
        total.copy_(product)


def cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    trained: Tensor | None = None,
    *,
    tied: TiedGradient | None = None,
    compute: Compute = PLAIN,
) -> Tensor:
    """Sum ``-log softmax(hidden @ weight.T)[target]`` in nats, differentiable once in ``hidden`` and ``weight``.

    ``hidden`` [rows, n_embd], ``weight`` [n_vocab, n_embd], ``targets`` int64 [rows], ``trained`` bool [rows]: the rows
    that count (None = all); the others cost nothing. Probabilities have the matrix products' type. With ``tied``, the
    gradient of ``weight`` goes there.
    """
    rows = None if trained is None or bool(trained.all()) else trained.nonzero().squeeze(1)
    with_gradient = torch.is_grad_enabled()
    loss: Tensor = _ChunkedCrossEntropy.apply(hidden, weight, targets, rows, tied, with_gradient, compute)
    return loss
