"""GGML's types of stored numbers: sizes of all of them, and values of those that ``quantization`` does not decode.

The numbers and sizes are those of ``ggml.h`` and ``gguf/constants.py``. The ``gguf`` package, an optional extra,
decodes Q4_1, Q5_0, Q5_1, Q2_K … Q6_K, IQ…, TQ… and the like. This module knows nothing of files' layouts.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2lab.errors import CheckpointError
from gpt2lab.weights.quantization import PRECISIONS, Precision

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def _packed(name: str, block: int, size: int) -> Precision:
    """Return a type of which ``block`` values take ``size`` bytes that this module does not interpret."""
    return Precision(name, np.dtype((np.void, size)), block)


GGML_TYPES: dict[int, Precision] = {
    0: PRECISIONS["float32"],
    1: PRECISIONS["float16"],
    2: PRECISIONS["q4_0"],
    3: _packed("q4_1", 32, 20),
    6: _packed("q5_0", 32, 22),
    7: _packed("q5_1", 32, 24),
    8: PRECISIONS["q8_0"],
    9: _packed("q8_1", 32, 40),
    10: _packed("q2_k", 256, 84),
    11: _packed("q3_k", 256, 110),
    12: _packed("q4_k", 256, 144),
    13: _packed("q5_k", 256, 176),
    14: _packed("q6_k", 256, 210),
    15: _packed("q8_k", 256, 292),
    16: _packed("iq2_xxs", 256, 66),
    17: _packed("iq2_xs", 256, 74),
    18: _packed("iq3_xxs", 256, 98),
    19: _packed("iq1_s", 256, 50),
    20: _packed("iq4_nl", 32, 18),
    21: _packed("iq3_s", 256, 110),
    22: _packed("iq2_s", 256, 82),
    23: _packed("iq4_xs", 256, 136),
    24: _packed("i8", 1, 1),
    25: _packed("i16", 1, 2),
    26: _packed("i32", 1, 4),
    27: _packed("i64", 1, 8),
    28: _packed("f64", 1, 8),
    29: _packed("iq1_m", 256, 56),
    30: PRECISIONS["bfloat16"],
    34: _packed("tq1_0", 256, 54),
    35: _packed("tq2_0", 256, 66),
    39: _packed("mxfp4", 32, 17),
    40: _packed("nvfp4", 64, 36),
    41: _packed("q1_0", 128, 18),
}
"""Every type by its number in files. Those that are missing here were removed from GGML, or are younger."""

_NO_WEIGHTS = frozenset({"i8", "i16", "i32", "i64", "f64", "q8_1", "q8_k"})
"""Types that llama.cpp stores no weights in, and the ``gguf`` package does not decode."""


def needs_package(precision: Precision) -> bool:
    """Return whether values of this type are decoded by the ``gguf`` package."""
    return precision.name not in PRECISIONS


def check_decodable(path: Path, name: str, precision: Precision) -> None:
    """Raise :class:`CheckpointError` if tensor ``name`` has a type that cannot be decoded here."""
    if precision.name in _NO_WEIGHTS:
        raise CheckpointError(f"{path}: {name} has type {precision.name.upper()}, which holds no weights")
    if needs_package(precision) and find_spec("gguf") is None:
        raise CheckpointError(
            f"{path}: weights in {precision.name.upper()} need the gguf package: pip install 'gpt2lab[gguf]'"
        )


def dequantize(stored: NDArray[Any], precision: Precision, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Decode items of a type that :func:`needs_package` to float32 ``[shape]``.

    Raises :class:`CheckpointError` if the installed ``gguf`` package does not know the type.
    """
    from gguf import GGMLQuantizationType, quants  # an optional extra, which takes a while to import

    row_bytes = shape[-1] // precision.block * precision.dtype.itemsize
    rows = stored.view(np.uint8).reshape(-1, row_bytes)
    try:
        with np.errstate(all="ignore"):  # a scale that is NaN or infinite is reported with the tensor's name
            values: NDArray[np.float32] = quants.dequantize(rows, GGMLQuantizationType[precision.name.upper()])
    except (KeyError, NotImplementedError):
        raise CheckpointError(f"the installed gguf package cannot decode {precision.name.upper()}: update it") from None
    return values.reshape(shape)
