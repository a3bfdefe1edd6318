"""A model among several processes: replicated (DistributedDataParallel) or sharded (FSDP2), and its sharded tensors.

Gradients are summed over processes, never averaged. A sharded tensor is PyTorch's DTensor. Its module moved between
versions, so it is recognized by its methods instead. This module knows nothing of how processes meet.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gpt2lab.errors import UsageError


def replicate(model: nn.Module, device: torch.device, *, is_main: bool) -> nn.Module:
    """Wrap ``model`` in DistributedDataParallel, with sums for means; all processes get the main one's weights."""
    model.to(device) if is_main else model.to_empty(device=device)
    wrapped = DistributedDataParallel(
        model,
        device_ids=[torch.cuda.current_device()] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,  # else every gradient would be in memory twice
    )
    wrapped.register_comm_hook(None, _sum_bucket)
    return wrapped


def _sum_bucket(_: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    summed: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return summed


_sum_bucket.__annotations__.clear()  # DDP compares them with classes, and here they are strings


def shard(model: nn.Module, device: torch.device, size: int) -> None:
    """Shard the parameters (FSDP2), with a group for each layer in ``h`` and one for the rest.

    Raises :class:`UsageError` if this PyTorch lacks the support.
    """
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard
    except ImportError:
        raise UsageError(_TOO_OLD) from None
    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise UsageError(_TOO_OLD)
    mesh = init_device_mesh(device.type, (size,))
    for part in (*model.h, model):
        sharded = fully_shard(part, mesh=mesh)
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)  # gloo can only sum: "mean" silently gives sums


_TOO_OLD = f"--parallel fsdp needs a newer PyTorch than {torch.__version__}: pip install -U torch, or use ddp"


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside a replicated one, or ``model`` itself."""
    inside: nn.Module = model.module if isinstance(model, DistributedDataParallel) else model
    return inside


def is_sharded(tensor: Tensor) -> bool:
    """Return whether every process holds only a part of ``tensor``."""
    return hasattr(tensor, "full_tensor")


def gathered(tensor: Tensor) -> Tensor:
    """Return the whole ``tensor``. A collective if it is sharded."""
    whole: Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor
    return whole


def local_part(tensor: Tensor) -> Tensor:
    """Return this process's part of ``tensor``."""
    part: Tensor = tensor.to_local() if is_sharded(tensor) else tensor
    return part


def part_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Return this process's part of the main process's whole ``tensor``, sharded like ``like``. A collective."""
    from torch.distributed.tensor import distribute_tensor

    part: Tensor = distribute_tensor(tensor, like.device_mesh, like.placements)
    return part


def all_finite(model: nn.Module) -> bool:
    """Return whether this process's part of all weights is finite."""
    return all(_is_finite(local_part(parameter.detach())) for parameter in model.parameters())


def _is_finite(tensor: Tensor) -> bool:
    """Return whether all values are finite; ``isfinite()`` would need more memory than the tensor itself."""
    return not tensor.numel() or all(bool(bound.isfinite()) for bound in tensor.aminmax())
