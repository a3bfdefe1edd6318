"""Products of matrices, and activations, by the native core on a CPU or by PyTorch.

PyTorch's library for products is faster on some vendors' CPUs than on others', and slow on GPT-2's vocabulary, whose
size is not a round number. The choice between the two changes the last bits. PyTorch computes the activations that are
not the original's. This module knows nothing of layers.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab import _native
from gpt2lab.engines.forks import let_fork
from gpt2lab.engines.native import asked_instruction_set
from gpt2lab.training.ops.compute import Compute, Precision

LEAST = 32  # rows and columns
MOST_THREADS = 1024


def multiply(
    a: Tensor,
    b: Tensor,
    out: Tensor,
    compute: Compute,
    *,
    bias: Tensor | None = None,
    add: bool = False,
    gelu: bool = False,
) -> Tensor:
    """Compute ``out = a @ b + bias``, or ``out += a @ b`` with ``add``, which excludes ``bias``. Outside autograd.

    ``a`` [m, k], ``b`` [k, n], ``bias`` [n], ``out`` [m, n], all on one device; ``out`` shares no memory with the
    others. All have one type, except where the native core computes in bfloat16: there ``a``, ``b`` and ``out`` have
    either, and ``bias``, and ``out`` with ``add``, are float32. ``gelu`` applies GELU, in its tanh form, to ``a``
    first. The native core's sums do not depend on the number of threads. PyTorch multiplies what the core cannot, and
    what is too small to be worth the call.
    """
    if compute.in_tiles(a, b, out):
        a, b = (x.detach() if _lies_together(x) else x.detach().contiguous() for x in (a, b))
        first = None if bias is None else bias.detach().contiguous()
        core().multiply_tiles(a, b, out.detach(), first, out.detach() if add else None, gelu)
        return out
    plain = out.stride(1) == 1 and (bias is None or bias.is_contiguous())
    if compute.native and plain and all(map(_suits, (a, b, out))):
        core().multiply(a.detach(), b.detach(), out.detach(), None if bias is None else bias.detach(), add, gelu)
        return out
    if gelu:
        a = F.gelu(a, approximate="tanh")
    if add:
        return out.addmm_(a, b)
    return torch.mm(a, b, out=out) if bias is None else torch.addmm(bias, a, b, out=out)


def activated(x: Tensor, activation: str, out: Tensor) -> Tensor:
    """Write the activation of ``x``, one of :data:`~gpt2lab.config.ACTIVATION_NAMES`, to ``out``. Outside autograd."""
    if activation == "relu":
        return torch.clamp_min(x, 0, out=out)
    if activation == "silu":
        return torch.ops.aten.silu.out(x, out=out)
    return torch.ops.aten.gelu.out(x, approximate=_approximation(activation), out=out)


def activation_gradient(x: Tensor, d: Tensor, activation: str, compute: Compute) -> Tensor:
    """Overwrite ``x`` with ``d`` times the activation's slope and return it; both [m, n], of one type and device.

    Outside autograd.
    """
    if activation == "relu":
        return torch.ops.aten.threshold_backward.grad_input(d, x, 0, grad_input=x)
    if activation == "silu":
        return torch.ops.aten.silu_backward.grad_input(d, x, grad_input=x)
    fits = compute.native and activation == "gelu_new" and x.stride(1) == d.stride(1) == 1
    if fits and compute.in_tiles(x, d) and x.dtype == d.dtype == torch.bfloat16:
        core().gelu_gradient_tiles(x.detach(), d.detach())
        return x
    if fits and all(map(_suits, (x, d))):
        core().gelu_gradient(x.detach(), d.detach(), x.detach())
        return x
    return torch.ops.aten.gelu_backward.grad_input(d, x, approximate=_approximation(activation), grad_input=x)


def _approximation(activation: str) -> str:
    return "tanh" if activation == "gelu_new" else "none"


def sum_rows(x: Tensor, compute: Compute) -> Tensor:
    """Return the sum of the rows of ``x`` [rows, n], float32 [n]. Outside autograd."""
    if not compute.in_tiles(x) or x.stride(1) != 1 or x.stride(0) < x.shape[1]:
        return x.sum(0, dtype=torch.float32)
    sums = x.new_empty(x.shape[1], dtype=torch.float32)
    core().sum_rows(x.detach(), sums)
    return sums


def native_is_faster(precision: Precision) -> bool:
    """Return whether the native core multiplies faster than PyTorch here, in ``precision``.

    In bfloat16 it does on a CPU with a matrix unit (AMX). In float32 the CPU's vendor decides, not a measurement, so
    that the same command gives the same bits every time. On AMD's CPUs, MKL reaches 0.7 to 0.85 of the peak, and 0.3
    with GPT-2's vocabulary; the native core reaches 0.9 and 0.8 (docs/LOG.md). MKL is made for Intel's CPUs. Other
    architectures have not been measured. With ``GPT2LAB_ISA=baseline`` PyTorch multiplies. Raises
    :class:`~gpt2lab.errors.UsageError` if that variable names instructions that this CPU lacks.
    """
    name = asked_instruction_set() or _native.instruction_sets()[0]
    if precision == "bfloat16":
        return name == "amx"
    return name.startswith(("avx", "amx")) and _native.cpu_vendor() != "GenuineIntel"


def core() -> _native.TrainingCore:
    """Return the native core, with as many threads as PyTorch uses."""
    return _core(min(torch.get_num_threads(), MOST_THREADS))


@cache
def _core(threads: int) -> _native.TrainingCore:
    core = _native.TrainingCore(threads, asked_instruction_set())
    let_fork(core, core)
    return core


def _suits(x: Tensor) -> bool:
    return x.dtype == torch.float32 and x.device.type == "cpu" and _lies_together(x) and min(x.shape) >= LEAST


def _lies_together(x: Tensor) -> bool:
    return min(x.stride()) == 1
