"""Cross-entropy over a large vocabulary, without ever holding all its logits.

The output matrix is most of a small GPT-2's arithmetic, and ``[batch*time, 50257]`` of logits, probabilities and
their gradients would be most of its memory. Here rows go through in chunks, each chunk's logits turn into
probabilities and into the gradient in one reused buffer, and the gradients are finished in the forward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_ROWS = 512


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, with_gradient: bool
    ) -> Tensor:
        rows, n_vocab = hidden.shape[0], weight.shape[0]
        h, w = hidden.detach().to(dtype), weight.detach().to(dtype)
        d_hidden, d_weight = torch.empty_like(h), torch.zeros_like(weight)
        buffer = torch.empty(min(CHUNK_ROWS, rows), n_vocab, dtype=dtype)
        total = 0.0
        for start in range(0, rows, CHUNK_ROWS):
            h_chunk = h[start : start + CHUNK_ROWS]
            chunk = buffer[: len(h_chunk)]
            chosen = torch.arange(len(h_chunk)), targets[start : start + CHUNK_ROWS]
            torch.mm(h_chunk, w.t(), out=chunk)  # logits [chunk, n_vocab]
            torch.softmax(chunk, -1, out=chunk)  # probabilities
            total -= chunk[chosen].float().clamp_min(torch.finfo(torch.float32).tiny).log().sum().item()
            if with_gradient:
                chunk[chosen] -= 1  # d loss / d logits, but for the division by `rows`
                torch.mm(chunk, w, out=d_hidden[start : start + CHUNK_ROWS])
                d_weight += torch.mm(chunk.t(), h_chunk)
        if with_gradient:
            ctx.save_for_backward(d_hidden.to(hidden.dtype).div_(rows), d_weight.div_(rows))
        return torch.tensor(total / rows)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * grad_outputs[0], d_weight * grad_outputs[0], None, None, None


def cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Mean of ``-log softmax(hidden @ weight.T)[target]`` in nats, differentiable once in ``hidden`` and ``weight``.

    ``hidden`` [rows, n_embd], ``weight`` [n_vocab, n_embd], ``targets`` int64 [rows]. ``dtype`` is that of the matrix
    products and of the probabilities kept between them; sums over the vocabulary are float32 either way.
    """
    loss: Tensor = _ChunkedCrossEntropy.apply(hidden, weight, targets, dtype, torch.is_grad_enabled())
    return loss
