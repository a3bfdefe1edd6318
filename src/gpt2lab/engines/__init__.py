"""Engines that compute GPT-2: :func:`open_engine` opens one, :mod:`gpt2lab.engines.protocol` is their interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpt2lab.engines.precision import TORCH_DEVICES, checked_device, default_kv_precision
from gpt2lab.errors import UsageError

if TYPE_CHECKING:
    from gpt2lab.engines.protocol import Engine
    from gpt2lab.weights.checkpoint import Checkpoint


def open_engine(
    checkpoint: Checkpoint,
    *,
    device: str = "cpu",
    threads: int | None = None,
    precision: str = "float32",
    kv_precision: str | None = None,
) -> Engine:
    """Open the engine for ``device`` (one of :data:`DEVICES`) with the weights of ``checkpoint``.

    ``threads`` (default: the physical cores) applies only to ``cpu``. ``kv_precision`` defaults to float32 with float32
    weights; with others to float16 in PyTorch, and in the native engine to bfloat16 with bfloat16, else to int8. Raises
    :class:`~gpt2lab.errors.UsageError` if the device or a precision does not exist here, or if the native engine has
    not been built.
    """
    device = checked_device(device, precision, kv_precision)
    kv_precision = kv_precision or default_kv_precision(precision, device)
    if device == "reference":
        from gpt2lab.engines.reference import ReferenceEngine

        return ReferenceEngine(checkpoint)
    if device in TORCH_DEVICES:
        from gpt2lab.engines.pytorch import TorchEngine

        return TorchEngine(checkpoint, device=TORCH_DEVICES[device], precision=precision, kv_precision=kv_precision)
    try:
        from gpt2lab.engines.native import NativeEngine
    except ImportError as error:
        raise UsageError(
            f"the native engine cannot be loaded ({error}): install gpt2lab again, or use device reference (slow)"
        ) from error
    return NativeEngine(checkpoint, threads=threads, precision=precision, kv_precision=kv_precision)
