"""The available devices and precisions, and the bytes that weights take in each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpt2lab.errors import UsageError

if TYPE_CHECKING:
    from gpt2lab.config import ModelConfig
    from gpt2lab.engines.protocol import Engine

DEVICES = ("cpu", "cuda", "mps", "auto", "reference", "torch-cpu")
"""``cpu`` is the native engine. ``cuda`` and ``mps`` are GPUs; ``auto`` is a GPU if there is one, otherwise ``cpu``.
``reference`` is NumPy: slow, for comparison. ``torch-cpu`` runs a GPU's code on the CPU, for tests."""

TORCH_DEVICES = {"cuda": "cuda", "mps": "mps", "torch-cpu": "cpu"}
"""Devices on which PyTorch computes → their names there."""

WEIGHT_BITS = {"float32": 32.0, "bfloat16": 16.0, "int8": 8.125, "int4": 4.375}
"""Precision → bits per matrix weight, scales included; biases, norms and positions are always float32."""

PRECISIONS = tuple(WEIGHT_BITS)
"""Precisions of the native engine's matrices; ``reference`` has only float32."""

TORCH_PRECISIONS = ("float32", "bfloat16", "float16", "int8")
"""Precisions of the layers' matrices in PyTorch's engine."""

ALL_PRECISIONS = tuple(dict.fromkeys((*PRECISIONS, *TORCH_PRECISIONS)))
"""Precisions of any engine."""

PRECISION_OF_FORMAT = {"q8_0": "int8", "q4_0": "int4"}
"""Format of GGUF files → the precision that takes its place in memory."""

KV_PRECISIONS = ("float32", "float16", "bfloat16", "int8")
"""Precisions of the native engine's KV cache; bfloat16 requires weights in bfloat16."""

TORCH_KV_PRECISIONS = ("float32", "float16")
"""Precisions of the KV cache in PyTorch's engine."""

MATRIX_UNIT_PRECISIONS = ("bfloat16",)
"""Precisions whose bits depend on whether the processor has a matrix unit; others have the same bits everywhere."""

EVERY_PROCESSOR = "every processor"
WITH_MATRIX_UNIT = "processors with a matrix unit"
WITHOUT_MATRIX_UNIT = "processors without a matrix unit"
MACHINE_GROUPS = (EVERY_PROCESSOR, WITH_MATRIX_UNIT, WITHOUT_MATRIX_UNIT)


def machine_group(precision: str, instruction_set: str) -> str:
    """Return the processors that compute the same bits in ``precision`` as ``instruction_set`` does."""
    if precision not in MATRIX_UNIT_PRECISIONS:
        return EVERY_PROCESSOR
    return WITH_MATRIX_UNIT if instruction_set == "amx" else WITHOUT_MATRIX_UNIT


def machine_of(engine: Engine) -> str | None:
    """Return the version and processor on which a text of PyTorch's engine depends; None for other engines."""
    machine: str | None = getattr(engine, "machine", None)
    return machine


def default_kv_precision(precision: str, device: str = "cpu") -> str:
    """Return the default precision of the KV cache for weights in ``precision``."""
    if precision == "float32":
        return "float32"
    if device in TORCH_DEVICES:
        return "float16"
    return "bfloat16" if precision == "bfloat16" else "int8"


def weight_bytes(config: ModelConfig, precision: str) -> int:
    """Return the bytes of a model's weights in ``precision``, without the padding for the kernels."""
    matrices = config.n_matrix_weights
    return round(matrices * WEIGHT_BITS[precision] / 8) + 4 * (config.n_params - matrices)


def checked_device(device: str, precision: str | None = None, kv_precision: str | None = None) -> str:
    """Return ``device``, or the one that ``auto`` is on this machine.

    Raises :class:`~gpt2lab.errors.UsageError` unless the device exists, is available, and has these precisions
    (None: any).
    """
    _check_one_of("device", device, DEVICES)
    if device not in ("cpu", "reference"):
        from gpt2lab.engines.torch_devices import present_device  # imported only here, because it may import PyTorch

        device = present_device(device)
    of_torch = device in TORCH_DEVICES
    for name, value, choices in (
        ("precision", precision, TORCH_PRECISIONS if of_torch else PRECISIONS),
        ("kv_precision", kv_precision, TORCH_KV_PRECISIONS if of_torch else KV_PRECISIONS),
    ):
        if value is not None:
            _check_one_of(name, value, choices, f" on device {device}" if of_torch else "")
        if device == "reference" and value not in (None, "float32"):
            raise UsageError(f"{name} {value!r} is not available on device reference: it computes in float32")
    check_pair(precision, kv_precision)
    return device


def check_pair(precision: str | None, kv_precision: str | None) -> None:
    """Raise UsageError for a bfloat16 cache with other weights: the bits would depend on the processor."""
    if kv_precision == "bfloat16" and precision != "bfloat16":
        others = ", ".join(name for name in KV_PRECISIONS if name != "bfloat16")
        raise UsageError(
            f"kv_precision 'bfloat16' requires precision 'bfloat16': set that too, or choose one of {others}"
        )


def file_format_error(name: str) -> str:
    """Return the error for a precision ``name`` that is a key of :data:`PRECISION_OF_FORMAT`."""
    return f"{name} is a file format; as a precision choose {PRECISION_OF_FORMAT[name]}"


def _check_one_of(name: str, value: str, choices: tuple[str, ...], where: str = "") -> None:
    if name == "precision" and value in PRECISION_OF_FORMAT:
        raise UsageError(file_format_error(value))
    if value not in choices:
        raise UsageError(f"{name} {value!r} is not available{where}: choose one of {', '.join(choices)}")
