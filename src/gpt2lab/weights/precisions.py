"""The ways to store numbers: float32, float16, bfloat16, and GGML's types with their sizes.

:mod:`gpt2lab.weights.quantization` encodes and decodes them. Only :attr:`Precision.dtype` imports NumPy,
which takes longer than reading a file's header.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

BLOCK = 32
"""The values of a block of ``q8_0`` and ``q4_0``."""


class Precision(NamedTuple):
    """A way to store numbers: ``block`` values take an item of ``size`` bytes."""

    name: str
    item: str | tuple[tuple[Any, ...], ...]
    """NumPy's description of an item: a name, or its fields."""
    size: int
    block: int = 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's dtype of an item."""
        import numpy as np

        return np.dtype(self.item if isinstance(self.item, str) else list(self.item))

    def n_bytes(self, n_values: int) -> int:
        """Return the bytes that ``n_values`` (a multiple of ``block``) take."""
        return n_values // self.block * self.size


PRECISIONS: dict[str, Precision] = {
    precision.name: precision
    for precision in (
        Precision("float32", "<f4", 4),
        Precision("float16", "<f2", 2),
        Precision("bfloat16", "<u2", 2),
        Precision("q8_0", (("d", "<f2"), ("q", "i1", (BLOCK,))), 2 + BLOCK, BLOCK),
        Precision("q4_0", (("d", "<f2"), ("q", "u1", (BLOCK // 2,))), 2 + BLOCK // 2, BLOCK),
    )
}


def _packed(name: str, block: int, size: int) -> Precision:
    """Return a precision of which ``block`` values take ``size`` bytes that gpt2lab does not interpret."""
    return Precision(name, f"V{size}", size, block)


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
"""GGML's types by their numbers in GGUF files (``ggml.h``); missing ones were removed, or are newer."""
