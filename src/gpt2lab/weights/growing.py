"""A larger model that computes the same function as a smaller one: more layers, or a longer context.

A new layer is a copy of the layer before it whose two projections into the residual stream are zero, so it adds nothing
until it is trained (as in Shen et al. 2022, Staged Training for Transformer Language Models). New layers are spread
evenly. New positions repeat the second half of the learned ones. This module knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from gpt2lab.config import ModelConfig
from gpt2lab.errors import UsageError
from gpt2lab.weights.checkpoint import Checkpoint, Tensor, tensor_shapes


def grown(checkpoint: Checkpoint, n_layer: int | None = None, n_ctx: int | None = None) -> Checkpoint:
    """Return ``checkpoint`` with ``n_layer`` layers and ``n_ctx`` positions; None keeps a number.

    Raises :class:`UsageError` if a number is smaller than the checkpoint's.
    """
    config = checkpoint.config
    for name, wanted in (("n_layer", n_layer), ("n_ctx", n_ctx)):
        if wanted is not None and wanted < getattr(config, name):
            own = getattr(config, name)
            raise UsageError(f"--{name} must be at least {own}, the value of {checkpoint.path}, got {wanted}")
    larger = replace(config, n_layer=n_layer or config.n_layer, n_ctx=n_ctx or config.n_ctx)
    if larger == config:
        return checkpoint
    return replace(checkpoint, config=larger, tensors=_Grown(checkpoint, larger))


class _Grown(Mapping[str, Tensor]):
    """The tensors of the larger model ``config``, each made on access: a shape beyond all memory costs nothing yet."""

    def __init__(self, checkpoint: Checkpoint, config: ModelConfig) -> None:
        self._small, self._smaller, self._config = checkpoint.tensors, checkpoint.config, config

    def __getitem__(self, name: str) -> Tensor:
        if name == "wpe.weight":
            return _longer(self._small[name], self._config.n_ctx)
        if not name.startswith("h."):
            return self._small[name]
        _, number, rest = name.split(".", 2)
        layer = int(number)
        source = self._source(layer)
        tensor = self._small[f"h.{source}.{rest}"]
        is_copy = layer > 0 and self._source(layer - 1) == source
        return np.zeros_like(tensor) if is_copy and ".c_proj." in name else tensor

    def _source(self, layer: int) -> int:
        """Return the layer of the smaller model that ``layer`` copies."""
        return layer * self._smaller.n_layer // self._config.n_layer

    def __iter__(self) -> Iterator[str]:
        return iter(tensor_shapes(self._config))

    def __len__(self) -> int:
        return len(tensor_shapes(self._config))


def _longer(positions: Tensor, n_ctx: int) -> Tensor:
    """Return ``positions`` continued to ``n_ctx`` rows by repeating their second half."""
    rows = len(positions)
    half = rows // 2
    more = np.arange(n_ctx - rows) % max(1, rows - half) + half
    return np.ascontiguousarray(positions[np.concatenate([np.arange(rows), more])])
