"""Decode weights in the types of llama.cpp that ``quantization`` does not decode: Q4_1, Q2_K … Q6_K, IQ4_NL …

The ``gguf`` package decodes them, an optional extra. This module is imported only for files that have such weights. It
knows nothing of files' layouts.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2lab.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from gpt2lab.weights.precisions import Precision

_NO_WEIGHTS = frozenset({"i8", "i16", "i32", "i64", "f64", "q8_1", "q8_k"})
"""Types that llama.cpp stores no weights in, and the ``gguf`` package does not decode."""


def check_decodable(path: Path, name: str, precision: Precision) -> None:
    """Raise :class:`CheckpointError` if this type of tensor ``name``, not one of ``PRECISIONS``, cannot be decoded."""
    if precision.name in _NO_WEIGHTS:
        raise CheckpointError(f"{path}: {name} has type {precision.name.upper()}, which holds no weights")
    if find_spec("gguf") is None:
        raise CheckpointError(
            f"{path}: weights in {precision.name.upper()} need the gguf package: pip install 'gpt2lab[gguf]'"
        )


def dequantize(stored: NDArray[Any], precision: Precision, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Decode items to float32 ``[shape]``.

    Raises :class:`CheckpointError` if the installed ``gguf`` package does not know the type.
    """
    from gguf import GGMLQuantizationType, quants  # an optional extra, which takes a while to import

    row_bytes = shape[-1] // precision.block * precision.size
    rows = stored.view(np.uint8).reshape(-1, row_bytes)
    try:
        with np.errstate(all="ignore"):  # a scale that is NaN or infinite is reported with the tensor's name
            values: NDArray[np.float32] = quants.dequantize(rows, GGMLQuantizationType[precision.name.upper()])
    except (KeyError, NotImplementedError):
        raise CheckpointError(f"the installed gguf package cannot decode {precision.name.upper()}: update it") from None
    return values.reshape(shape)
