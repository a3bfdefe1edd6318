"""The available devices and precisions, and the bytes that weights take in each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpt2lab.errors import UsageError

if TYPE_CHECKING:
    from gpt2lab.config import ModelConfig

DEVICES = ("cpu", "reference")
"""``cpu`` is the native engine; ``reference`` is NumPy: slow, for comparison."""

WEIGHT_BITS = {"float32": 32.0, "bfloat16": 16.0, "int8": 8.125, "int4": 4.375}
"""Precision → bits per matrix weight, scales included; biases, norms and positions are always float32."""

PRECISIONS = tuple(WEIGHT_BITS)
"""Precisions of the native engine's matrices; ``reference`` has only float32."""

PRECISION_OF_FORMAT = {"q8_0": "int8", "q4_0": "int4"}
"""Format of GGUF files → the precision that takes its place in memory."""

KV_PRECISIONS = ("float32", "float16", "int8")
"""Precisions of its KV cache."""

MATRIX_UNIT_PRECISIONS = ("bfloat16",)
"""Precisions whose bits depend on whether the processor has a matrix unit; others have the same bits everywhere."""

EVERY_PROCESSOR = "every processor"
WITH_MATRIX_UNIT = "processors with a matrix unit"
WITHOUT_MATRIX_UNIT = "processors without a matrix unit"


def machine_group(precision: str, instruction_set: str) -> str:
    """Return the processors that compute the same bits in ``precision`` as ``instruction_set`` does."""
    if precision not in MATRIX_UNIT_PRECISIONS:
        return EVERY_PROCESSOR
    return WITH_MATRIX_UNIT if instruction_set == "amx" else WITHOUT_MATRIX_UNIT


def default_kv_precision(precision: str) -> str:
    """Return the default precision of the KV cache for weights in ``precision``."""
    return "float32" if precision == "float32" else "float16"


def weight_bytes(config: ModelConfig, precision: str) -> int:
    """Return the bytes of a model's weights in ``precision``, without the padding for the kernels."""
    matrices = config.n_matrix_weights
    return round(matrices * WEIGHT_BITS[precision] / 8) + 4 * (config.n_params - matrices)


def check_device(device: str, precision: str | None = None, kv_precision: str | None = None) -> None:
    """Raise :class:`~gpt2lab.errors.UsageError` unless ``device`` exists and has these precisions (None: any)."""
    _check_one_of("device", device, DEVICES)
    for name, value, choices in (("precision", precision, PRECISIONS), ("kv_precision", kv_precision, KV_PRECISIONS)):
        if value is not None:
            _check_one_of(name, value, choices)
        if device == "reference" and value not in (None, "float32"):
            raise UsageError(f"{name} {value!r} is not available on device reference: it computes in float32")


def file_format_error(name: str) -> str:
    """Return the error for a precision ``name`` that is a key of :data:`PRECISION_OF_FORMAT`."""
    return f"{name} is a file format; as a precision choose {PRECISION_OF_FORMAT[name]}"


def _check_one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if name == "precision" and value in PRECISION_OF_FORMAT:
        raise UsageError(file_format_error(value))
    if value not in choices:
        raise UsageError(f"{name} {value!r} is not available: choose one of {', '.join(choices)}")
