"""GPT-2's layers in PyTorch, for passes that always have the same number of rows.

A row is one token of any sequence. A row's numbers do not depend on the rows beside it: every product has one shape, so
one kernel with one order of sums, and attention treats each row by itself, over the keys of its own sequence. This
module knows nothing of sequences' beginnings and ends.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpt2lab.engines.pytorch_blocks import BLOCK, ZEROS
from gpt2lab.errors import UsageError

if TYPE_CHECKING:
    from gpt2lab.weights.checkpoint import Checkpoint

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.bfloat16}
"""Precision of the weights → type of the products."""

_LARGEST_HALF = 65504.0

_INDEPENDENT = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Kernels of attention on CUDA that neither split a row's keys nor choose their steps by the number of rows."""


class Affine(NamedTuple):
    """An affine map. Its weight is in the precision of the weights, all else is float32."""

    weight: Tensor  # [n_in, n_out]
    bias: Tensor  # [n_out]
    scale: Tensor | None  # [n_out], of an int8 weight
    dtype: torch.dtype

    def __call__(self, x: Tensor) -> Tensor:
        """Return the map of ``x``, float32 ``[rows, n_in] -> [rows, n_out]``."""
        if self.dtype == torch.float32:
            return torch.addmm(self.bias, x, self.weight)
        y = torch.mm(x.to(self.dtype), self.weight.to(self.dtype)).float()
        return y + self.bias if self.scale is None else torch.addcmul(self.bias, y, self.scale)


class Layer(NamedTuple):
    """The weights of a layer."""

    ln_1: tuple[Tensor, Tensor]
    c_attn: Affine
    attn_proj: Affine
    ln_2: tuple[Tensor, Tensor]
    c_fc: Affine
    mlp_proj: Affine


class TorchModel:
    """The weights of ``checkpoint`` on ``device``, with the matrices of the layers in ``precision``.

    The embeddings, and so the logits, are float32 in every precision.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device, precision: str) -> None:
        self.config = checkpoint.config
        self.device = device
        self._path, self._tensors, self._precision = checkpoint.path, checkpoint.tensors, precision
        self.wte = self._tensor("wte.weight")
        self._wpe = self._tensor("wpe.weight")
        self._layers = [
            Layer(
                self._norm(f"h.{n}.ln_1"),
                self._affine(f"h.{n}.attn.c_attn"),
                self._affine(f"h.{n}.attn.c_proj"),
                self._norm(f"h.{n}.ln_2"),
                self._affine(f"h.{n}.mlp.c_fc"),
                self._affine(f"h.{n}.mlp.c_proj"),
            )
            for n in range(self.config.n_layer)
        ]
        self._ln_f = self._norm("ln_f")
        self._output = self.wte if self.config.tie_word_embeddings else self._tensor("lm_head.weight")

    def hidden(self, cache: Tensor, rows: Tensor) -> Tensor:
        """Return the final hidden states of ``rows``, float32 ``[rows, n_embd]``.

        ``cache`` has keys and values as :class:`~gpt2lab.engines.pytorch_blocks.Blocks` holds them; the rows' own are
        written there. ``rows``, int64 ``[rows, 2 + n_blocks]``, has in each row a token id, its position, and the
        blocks of its sequence, at least as far as the position.
        """
        tokens, positions, table = rows[:, 0], rows[:, 1], rows[:, 2:]
        cells = (table[:, :, None] * BLOCK + torch.arange(BLOCK, device=self.device)).flatten(1)  # [rows, n_keys]
        own = cells.gather(1, positions[:, None])[:, 0]  # where the rows' keys and values go
        ahead = torch.arange(cells.shape[1], device=self.device) > positions[:, None]
        seen = cells.masked_fill_(ahead, ZEROS * BLOCK).flatten()  # despite the mask, a NaN ahead would reach the row
        mask = torch.zeros(ahead.shape, dtype=cache.dtype, device=self.device).masked_fill_(ahead, -torch.inf)
        x = self.wte[tokens] + self._wpe[positions]  # [rows, n_embd]
        with sdpa_kernel(_INDEPENDENT) if self.device.type == "cuda" else nullcontext():
            for n, layer in enumerate(self._layers):
                qkv = layer.c_attn(self._normed(x, layer.ln_1))  # [rows, n_embd] -> [rows, 3*n_embd]
                x = x + layer.attn_proj(self._attention(n, qkv, cache[n], own, seen, mask))
                inner = self._activation(layer.c_fc(self._normed(x, layer.ln_2)))  # [rows, mlp_width]
                x = x + layer.mlp_proj(inner)
        return self._normed(x, self._ln_f)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits ``[rows, n_vocab]`` of hidden states ``[rows, n_embd]``."""
        return F.linear(hidden, self._output)

    def _attention(
        self, n: int, qkv: Tensor, cache: Tensor, own: Tensor, seen: Tensor, mask: Tensor
    ) -> Tensor:  # qkv [rows, 3*n_embd], cache [2, n_blocks, BLOCK, n_embd], own [rows], mask [rows, n_keys]
        """Return each row's mix of the values that it sees, float32 ``[rows, n_embd]``; store its own key and value."""
        if cache.dtype == torch.float16:
            qkv = qkv.clamp(-_LARGEST_HALF, _LARGEST_HALF) + 0 * qkv  # NaN where infinite, as in the native engine
        q, k, v = qkv.to(cache.dtype).split(self.config.n_embd, dim=1)
        heads = (self.config.n_head, self.config.head_dim)
        read = []
        for part, new in zip(cache.flatten(1, 2), (k, v), strict=True):
            part.index_copy_(0, own, new)
            rows = part.index_select(0, seen).view(*mask.shape, *heads)  # [rows, n_keys, n_head, head_dim]
            read.append(rows.transpose(1, 2))
        keys, values = read
        mixed = F.scaled_dot_product_attention(
            q.unflatten(1, heads)[:, :, None],  # [rows, n_head, 1, head_dim]
            keys,
            values,
            attn_mask=mask[:, None, None],
            scale=self.config.attention_scale(n),
        )
        return mixed.flatten(1).float()

    def _normed(self, x: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], *norm, eps=self.config.layer_norm_epsilon)

    def _activation(self, x: Tensor) -> Tensor:
        if self.config.activation == "relu":
            return F.relu(x)
        if self.config.activation == "silu":
            return F.silu(x)
        return F.gelu(x, approximate="tanh" if self.config.activation == "gelu_new" else "none")

    def _tensor(self, name: str) -> Tensor:
        return torch.from_numpy(np.array(self._tensors[name], np.float32)).to(self.device)

    def _norm(self, name: str) -> tuple[Tensor, Tensor]:
        return self._tensor(f"{name}.weight"), self._tensor(f"{name}.bias")

    def _affine(self, name: str) -> Affine:
        weight, bias, dtype = self._tensor(f"{name}.weight"), self._tensor(f"{name}.bias"), DTYPES[self._precision]
        if self._precision != "int8":
            scale, held = None, weight.to(dtype)
        else:
            scale = weight.abs().amax(0).clamp_min(torch.finfo(torch.float32).tiny) / 127  # of each output
            held = (weight / scale).round().to(torch.int8)
        if self._precision != "float32" and not (held if scale is None else scale).isfinite().all():
            raise UsageError(
                f"{self._path} cannot be held in {self._precision} ({name}.weight has values that are not finite in "
                "this precision): choose float32"
            )
        return Affine(held, bias, scale, dtype)
