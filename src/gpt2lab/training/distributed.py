"""Several processes that train one model, on one machine or many.

``torchrun`` (or a batch system) starts them and sets rank and world size in the environment; :class:`World` is what a
process knows of the others. There are two ways to share the work. ``ddp`` holds the whole model in every process and
sums gradients. ``fsdp`` (PyTorch's FSDP2) is for models that one process cannot hold: each process holds a part of
every tensor, and layers are gathered one at a time. Gradients are **summed** over processes, never averaged: the
trainer divides by the number of targets in the whole update, because each process may have a different number.

Without torchrun the world is one process, and nothing here communicates. This module knows nothing of data, optimizers
or files.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gpt2lab.engines.torch_devices import present_device
from gpt2lab.errors import Gpt2LabError, UsageError
from gpt2lab.system.cores import logical_cores
from gpt2lab.training.meeting import fresh_store
from gpt2lab.training.parallel import gathered, is_sharded, local_part, part_like, replicate, shard, unwrapped

Parallel = Literal["ddp", "fsdp"]
LOST_SIGNS = ("gloo", "nccl", "connection", "socket", "timed out")  # in the error messages that a dead peer causes
TIME_TO_ANSWER = timedelta(hours=4)  # one process may fetch data or write samples while the others wait
TIME_TO_REPORT = 3.0  # seconds: torchrun ends all processes when the first one is gone
TIME_TO_LET_GO = 0.2  # seconds for gloo's threads to take the interpreter's lock and release the last tensors


class World:
    """This process among ``size`` processes; a context manager that ends all of them when one fails.

    Every method but :meth:`share` is a collective: all processes must call the same ones in the same order, or they
    wait for each other forever.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: str = "cpu", store: Any = None) -> None:
        self.rank, self.size, self._store = rank, size, store
        self.device = torch.device(device)

    @classmethod
    def start(cls, device: str = "cpu") -> World:
        """Connect to the other processes that the environment names (``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR``, …).

        ``device`` ``"auto"`` is a GPU if there is one, but never ``mps`` for several processes, which cannot exchange
        gradients there. Raises :class:`UsageError` if the device is missing or the connection fails.
        """
        size = os.environ.get("WORLD_SIZE", "1")
        asked, device = device, device if device == "cpu" else present_device(device)
        if size == "1":
            return cls(device=device)
        if asked == "mps":
            raise UsageError("--device mps trains in one process: several cannot exchange gradients there")
        device = "cpu" if device == "mps" else device
        try:
            if device == "cuda":
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            shared, rank, number = next(dist.rendezvous("env://"))
            store = fresh_store(shared, rank, number)
            backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=number, timeout=TIME_TO_ANSWER)
        except (RuntimeError, ValueError) as error:
            where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            raise UsageError(
                f"process {os.environ.get('RANK')} of {size} cannot reach the others at {where} "
                f"({_first_line(error)}): start them with torchrun"
            ) from error
        return cls(rank, number, device, store)

    def close(self) -> None:
        """Disconnect from the other processes."""
        if self.size > 1 and dist.is_initialized():
            time.sleep(TIME_TO_LET_GO)  # a thread still waiting for the lock at exit aborts the process
            dist.destroy_process_group()

    def __enter__(self) -> World:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """If this process or another failed, make one of them report it and the others end silently."""
        if self.size == 1:
            return
        try:
            if isinstance(error, Exception):
                self._part_in_error(error)
            elif error is None:
                self.barrier()  # a process that leaves early can abort another that is still cleaning up
        finally:
            self.close()

    def _part_in_error(self, error: Exception) -> None:
        lost = not isinstance(error, Gpt2LabError) and _is_loss_of_a_peer(error)
        if not self._is_first_to_fail():
            time.sleep(TIME_TO_REPORT)
            raise SystemExit(2) from None
        if lost:
            raise UsageError(
                f"process {self.rank} of {self.size} lost its connection to another, which was killed or whose machine "
                f"or network failed; run the same command again to resume from the last state"
            ) from error

    def _is_first_to_fail(self) -> bool:
        with suppress(RuntimeError):  # the store is gone with its process, which has reported the failure
            return bool(self._store.add("gpt2lab/failed", 1) == 1)
        return False

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def share(self, count: int) -> int:
        """Return this process's equal share of ``count`` windows. Raises :class:`UsageError` if they do not divide."""
        if count % self.size:
            raise UsageError(
                f"{count} windows per update (batch_size x accumulate_gradients) do not divide equally among "
                f"{self.size} processes: choose a multiple of {self.size}"
            )
        return count // self.size

    # Agreeing on small things

    def sum(self, value: float) -> float:
        """Return the sum of ``value`` over all processes, in float64."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total)
        return float(total)

    def any(self, flag: bool) -> bool:
        """Return whether ``flag`` is true in any process."""
        return self.sum(float(flag)) > 0

    def any_of_two(self, first: bool, second: bool) -> tuple[bool, bool]:
        """Return for each flag whether it is true in any process, using a single exchange."""
        total = self.sum(float(first) + (self.size + 1) * float(second))
        return total % (self.size + 1) > 0, total > self.size

    def barrier(self) -> None:
        """Wait for all processes."""
        self.sum(0.0)

    def broadcast(self, value: Any) -> Any:
        """Return the main process's ``value``, which can be anything that pickles."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    # The model

    def building(self) -> AbstractContextManager[Any]:
        """Return a context to build a model in: real in the main process, on the meta device in the others."""
        return nullcontext() if self.is_main else torch.device("meta")

    def wrap(self, model: nn.Module, parallel: Parallel = "ddp") -> nn.Module:
        """Return the module to call in place of ``model``; its weights become the main process's.

        With ``fsdp`` the parameters of ``model`` itself become sharded: make the optimizers afterwards. The model must
        have its layers in ``h``. Raises :class:`UsageError` if this PyTorch lacks the support.
        """
        if self.size == 1:
            return model.to(self.device)
        if parallel == "ddp":
            return replicate(model, self.device, is_main=self.is_main)
        weights = {name: parameter.detach() for name, parameter in model.named_parameters()} if self.is_main else {}
        shard(model, self.device, self.size)
        if not self.is_main:
            model.to_empty(device=self.device)  # shards only: no process but the main one ever has a whole model
        parts = dict(self.local_tensors(model, weights))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(parts.pop(name))
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)
        return model

    def last_micro_batch(self, wrapped: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Return a context for a micro-batch's forward and backward pass; replicas exchange gradients only if ``last``.

        Shards exchange them in every micro-batch, because waiting would take memory for all gradients in every process.
        """
        if isinstance(wrapped, DistributedDataParallel) and not last:
            synchronization: AbstractContextManager[Any] = wrapped.no_sync()
            return synchronization
        return nullcontext()

    @torch.no_grad()
    def clip(self, model: nn.Module, max_norm: float) -> float:
        """Scale all gradients so that their common norm is at most ``max_norm``; return the norm before scaling."""
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        local = [local_part(gradient) for gradient in gradients]
        norm = math.hypot(*(float(norm) for norm in torch._foreach_norm(local)))
        if any(is_sharded(gradient) for gradient in gradients):
            norm = math.sqrt(self.sum(norm**2))
        if norm > max_norm:
            torch._foreach_mul_(local, max_norm / (norm + 1e-6))
        return norm

    # Whole tensors, for saving and loading with any number of processes

    def full_tensors(self, source: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the whole tensors of a model or a mapping, on the CPU, in the main process; nothing elsewhere.

        Tensors that are already whole are not copied. If they do not all fit in memory, use :meth:`on_main`.
        """
        tensors = unwrapped(source).state_dict() if isinstance(source, nn.Module) else source
        whole = {}
        for name, tensor in tensors.items():
            full = gathered(tensor)
            if self.is_main:
                whole[name] = full.detach().cpu()
        return whole

    def on_main(self, action: Callable[..., Any], *sources: Mapping[str, Tensor]) -> Any:
        """Run ``action(*sources)`` in the main process, while the others help to gather sharded tensors one at a time.

        In place of a sharded tensor the action gets an object that has its ``shape``, and whose ``detach()`` gathers
        the tensor at each call. Returns the action's result; None in the other processes.
        """
        if self.is_main:
            stand_ins = [
                {name: _Sharded(self, (number, name), t) if is_sharded(t) else t for name, t in source.items()}
                for number, source in enumerate(sources)
            ]
            try:
                return action(*stand_ins)
            finally:
                self.broadcast(None)
        while (asked := self.broadcast(None)) is not None:
            number, name = asked
            gathered(sources[number][name])
        return None

    def local_tensors(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return this process's part of the main process's ``tensors``: the inverse of :meth:`full_tensors`.

        The other processes need not have them. A tensor is sharded like the parameter of ``model`` that has the same
        name (up to a colon) and shape; any other tensor is the same in every process. Handles one tensor at a time.
        """
        if self.size == 1:
            return tensors
        like = dict(unwrapped(model).named_parameters())
        parts = {}
        for name in self.broadcast(list(tensors)):
            whole = tensors[name].detach() if self.is_main else None
            shape, dtype = self.broadcast(None if whole is None else (whole.shape, whole.dtype))
            whole = torch.empty(shape, dtype=dtype) if whole is None else whole.contiguous()
            parts[name] = self._part(whole.to(self.device), like.get(name.partition(":")[0]))
        return parts

    def _part(self, whole: Tensor, like: Tensor | None) -> Tensor:
        if like is not None and is_sharded(like) and like.shape == whole.shape:
            return part_like(whole, like)
        dist.broadcast(whole, src=0)
        return whole


class _Sharded:
    """A stand-in for a sharded tensor in an action of the main process."""

    def __init__(self, world: World, key: tuple[int, str], tensor: Tensor) -> None:
        self.shape, self._world, self._key, self._tensor = tensor.shape, world, key, tensor

    def detach(self) -> Tensor:
        """Gather and return the whole tensor."""
        self._world.broadcast(self._key)
        return gathered(self._tensor).detach()


def use_threads(threads: int | None) -> None:
    """Compute with ``threads`` threads in this process.

    None chooses: if torchrun started several processes on this machine, an equal share of the processors, most of which
    torchrun's ``OMP_NUM_THREADS=1`` would leave idle; otherwise PyTorch's choice, but no more than the processors that
    a container grants, a limit that PyTorch ignores.
    """
    several = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if threads is None and several > 1:
        threads = max(1, logical_cores() // several)
    elif threads is None and "OMP_NUM_THREADS" not in os.environ and logical_cores() < torch.get_num_threads():
        threads = logical_cores()
    if threads is not None:
        torch.set_num_threads(threads)


def _is_loss_of_a_peer(error: Exception) -> bool:
    if isinstance(error, dist.DistError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in LOST_SIGNS)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
