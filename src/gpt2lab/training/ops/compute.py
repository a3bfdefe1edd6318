"""The way in which an update is computed: one description, from the settings down to every product.

It names the precision of matrix products, what the backward pass recomputes, which library multiplies, and where
results are allocated. These choices change rounding, speed and memory, and nothing else. This module knows nothing of
layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gpt2lab.training.ops.pool import Pool

Precision = Literal["float32", "bfloat16"]
Recompute = Literal["cheap", "layers", "none"]


@dataclass(frozen=True)
class Compute:
    """The way in which a model's forward and backward pass are computed.

    Args:
        precision: the type of matrix products and attention; weights, norms and the residual stream are float32.
        recompute: what the backward pass recomputes instead of keeping it: norms and GELUs ("cheap"), whole layers
            ("layers": least memory), or nothing ("none"). Gradients are the same, up to rounding.
        native: whether the native core computes products, attention and the loss on a CPU, instead of PyTorch; in
            bfloat16 it needs a matrix unit. It always computes norms there.
        pool: the memory for results and gradients; None leaves it to PyTorch.
    """

    precision: Precision = "float32"
    recompute: Recompute = "cheap"
    native: bool = False
    pool: Pool | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The type of matrix products and attention."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    def in_tiles(self, *tensors: Tensor) -> bool:
        """Return whether the native core computes in bfloat16 with all of ``tensors``, which it rounds itself."""
        on_cpu = all(x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) for x in tensors)
        return self.native and self.precision == "bfloat16" and on_cpu

    def operand(self, x: Tensor) -> Tensor:
        """Return ``x`` as a matrix for a product: in the products' type, unless the native core rounds it."""
        return x if self.in_tiles(x) else self.converted(x, self.dtype)

    def empty(self, *shape: int, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Return an uninitialized tensor on ``like``'s device, of ``dtype`` (None = that of ``like``)."""
        like = like if dtype in (None, like.dtype) else like.new_empty(0, dtype=dtype)
        return like.new_empty(shape) if self.pool is None else self.pool.empty(*shape, like=like)

    def converted(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Return ``x.to(dtype)``, in the pool's memory. Outside autograd."""
        return x if x.dtype == dtype else self.empty(*x.shape, like=x, dtype=dtype).copy_(x)


PLAIN = Compute()
"""The default: float32, by PyTorch, in its own memory."""
