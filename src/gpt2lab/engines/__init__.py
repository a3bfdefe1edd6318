"""Machines that compute GPT-2; :func:`open_engine` opens one, :mod:`gpt2lab.engines.protocol` says what each can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpt2lab.engines.precision import check_device
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
    """The engine for ``device`` (one of :data:`DEVICES`) with the weights of ``checkpoint`` in it.

    ``threads`` (default: the physical cores) concerns ``cpu`` alone; ``kv_precision`` is float32 by default beside
    float32 weights, and float16 beside others. Raises :class:`~gpt2lab.errors.UsageError` for what there is not, and
    for a native engine that has not been built.
    """
    check_device(device, precision, kv_precision)
    if device == "reference":
        from gpt2lab.engines.reference import ReferenceEngine

        return ReferenceEngine(checkpoint)
    try:
        from gpt2lab.engines.native import NativeEngine
    except ImportError as error:
        raise UsageError(
            f"the native engine cannot be loaded ({error}): install gpt2lab again, or use device reference (slow)"
        ) from error
    return NativeEngine(checkpoint, threads=threads, precision=precision, kv_precision=kv_precision)
