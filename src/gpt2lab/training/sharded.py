"""Tensors of which every process may have a part only: PyTorch's DTensor, which FSDP makes of parameters.

Its module moved between versions of PyTorch; what it can do tells it from a plain tensor.
"""

from __future__ import annotations

from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether every process has only a part of ``tensor``."""
    return hasattr(tensor, "full_tensor")


def gathered(tensor: Tensor) -> Tensor:
    """All of ``tensor``. A collective if it is sharded."""
    whole: Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor
    return whole


def local_part(tensor: Tensor) -> Tensor:
    """This process's part of ``tensor``."""
    part: Tensor = tensor.to_local() if is_sharded(tensor) else tensor
    return part


def part_like(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's part of the main process's whole ``tensor``, sharded as ``like`` is. A collective."""
    from torch.distributed.tensor import distribute_tensor

    part: Tensor = distribute_tensor(tensor, like.device_mesh, like.placements)
    return part
