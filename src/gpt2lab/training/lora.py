"""LoRA (Hu et al. 2021): train small low-rank additions to the matrices and nothing else.

An adapted product is ``x @ weight + dropout(x) @ a @ b * alpha / rank``. ``b`` starts at zero, so the model starts
unchanged. Queries, keys and values are one matrix in GPT-2 but three targets here. This module knows nothing of files:
:func:`merged` returns the tensors of an ordinary model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gpt2lab.errors import UsageError
from gpt2lab.training.module import GPT2, Projection
from gpt2lab.training.ops.affine import LowRank

PLACES = {  # target: its projection within a layer, and its third of the columns (None: all of them)
    "attn.q": ("attn.c_attn", 0),
    "attn.k": ("attn.c_attn", 1),
    "attn.v": ("attn.c_attn", 2),
    "attn.proj": ("attn.c_proj", None),
    "mlp.fc": ("mlp.c_fc", None),
    "mlp.proj": ("mlp.c_proj", None),
}
_MARK = ".adapter."  # in the names of the adapters' tensors


class Adapter(nn.Module):
    """Low-rank additions to one projection: one for all its columns, or one for each chosen third of them."""

    def __init__(
        self, weight: Tensor, thirds: Sequence[int | None], rank: int, alpha: float, dropout: float, seed: int
    ) -> None:
        super().__init__()
        n_in, n_out = weight.shape
        self.thirds, self.rank, self.scale, self.dropout = tuple(thirds), rank, alpha / rank, dropout
        width = n_out if None in thirds else n_out // 3
        self.a = nn.Parameter(_uniform(weight, (n_in, rank * len(thirds)), 1 / math.sqrt(n_in), seed))
        self.b = nn.Parameter(weight.new_zeros(len(thirds), rank, width))

    def forward(self, x: Tensor) -> LowRank:
        """Return the addition to the weight for an input ``[..., n_in]``; in training, with a fresh dropout mask."""
        kept, p = None, self.dropout
        if self.training and p > 0:
            kept = torch.rand(x.shape, device=x.device) >= p
        return LowRank(self.a, self.columns() * self.scale, kept, 1 / (1 - p))

    def columns(self) -> Tensor:
        """Return ``b`` of all targets as one matrix ``[rank * targets, n_out]``, zero outside a target's columns."""
        whole = _everywhere(self.b)
        if self.thirds == (None,):
            return whole[0]
        rows = []
        for third, b in zip(self.thirds, whole, strict=True):
            assert third is not None
            rows.append(nn.functional.pad(b, (third * b.shape[1], (2 - third) * b.shape[1])))
        return torch.cat(rows)

    def product(self) -> Tensor:
        """Return the addition to the weight, ``[n_in, n_out]``."""
        return self.a @ self.columns() * self.scale


def _everywhere(tensor: Tensor) -> Tensor:
    """Return the whole ``tensor``, of which each process may hold a part (FSDP, outside a forward pass)."""
    if not hasattr(tensor, "redistribute"):
        return tensor
    from torch.distributed.tensor import Replicate

    whole: Tensor = tensor.redistribute(placements=[Replicate()])
    return whole


def add_lora(
    model: GPT2, rank: int, alpha: float, targets: Sequence[str], dropout: float = 0.0, *, seed: int = 0
) -> None:
    """Give every layer of ``model`` adapters for ``targets`` (keys of :data:`PLACES`) and freeze everything else.

    Raises :class:`UsageError` for an unknown target, for no targets, or for a rank below 1.
    """
    unknown = [target for target in targets if target not in PLACES]
    if unknown or not targets:
        raise UsageError(f"LoRA targets must be among {', '.join(PLACES)}, got {', '.join(unknown) or 'none'}")
    if rank < 1:
        raise UsageError(f"the LoRA rank must be at least 1, got {rank}")
    model.requires_grad_(False)
    places: dict[str, list[int | None]] = {}
    for target, (place, third) in PLACES.items():
        if target in targets:
            places.setdefault(place, []).append(third)
    for layer, block in enumerate(model.h):
        for number, (place, thirds) in enumerate(places.items()):
            projection = block.get_submodule(place)
            own_seed = seed * 1_000_003 + layer * len(PLACES) + number
            projection.adapter = Adapter(projection.weight, thirds, rank, alpha, dropout, own_seed)


def has_lora(model: GPT2) -> bool:
    """Return whether ``model`` has adapters."""
    return any(isinstance(module, Adapter) for module in model.modules())


@torch.no_grad()
def merged(model: GPT2) -> dict[str, Tensor]:
    """Return the tensors of an ordinary model that computes what ``model`` does, under the canonical names.

    Without adapters these are ``model.state_dict()``'s own tensors; with adapters, the adapted matrices are new.
    """
    tensors = {name: tensor for name, tensor in model.state_dict().items() if _MARK not in name}
    for name, module in model.named_modules():
        if isinstance(module, Projection) and isinstance(module.adapter, Adapter):
            tensors[f"{name}.weight"] = module.weight + module.adapter.product()
    return tensors


def adapter_tensors(model: GPT2) -> dict[str, Tensor]:
    """Return the adapters' tensors by name: everything that LoRA trains."""
    return {name: tensor for name, tensor in model.state_dict().items() if _MARK in name}


def _uniform(like: Tensor, shape: tuple[int, ...], bound: float, seed: int) -> Tensor:
    if like.is_meta:  # the main process has the values
        return like.new_empty(shape)
    values = torch.empty(shape, dtype=like.dtype, device="cpu")
    values.uniform_(-bound, bound, generator=torch.Generator(device="cpu").manual_seed(seed))
    return values.to(like.device)
