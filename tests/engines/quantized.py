"""GPT-2 in every precision of the native engine, in NumPy and float64: what its kernels are compared with.

Follows :mod:`gpt2lab.reference`, with weights rounded to a precision, and activations as well: for ``q8_0`` and
``q4_0`` to int8, block by block; to bfloat16 where a matrix unit multiplies these. Two right programs may round an
activation that lies half-way between two such numbers to different sides, and differ visibly from there on. So the
model also reports the rows that no such close call has affected; those must agree to float rounding. This module shares
no code with the C++ and knows nothing of its layout.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpt2lab import reference
from gpt2lab.config import ModelConfig
from gpt2lab.weights.checkpoint import Checkpoint
from gpt2lab.weights.quantization import BLOCK, PRECISIONS, decode, encode

Array = NDArray[np.float64]
CLOSE = 3e-4
"""Distance from a half, in steps of the int8 or bfloat16, below which an activation is a close call.

float32 errs by 1e-6 of 127 or 256 steps.
"""
CLOSE_FLOAT16 = 1e-3
"""The same for keys and values, in steps of float16, which are 2000 of a float32's."""
LARGEST_FLOAT16 = 65504.0
TINY = np.float32(1e-36)
"""Blocks of smaller activations count as zeros: 127 divided by them would overflow."""


@dataclass(frozen=True, eq=False)
class Matrix:
    """A weight ``[n_out, n_in]`` as it is stored: ``values`` times ``scales``, ``n_in`` padded to whole blocks."""

    values: Array  # [n_out, n_blocks, block]; whole numbers in q8_0 and q4_0
    scales: Array  # [n_out, n_blocks]; ones in float32 and bfloat16
    n_in: int

    @classmethod
    def store(cls, weight: NDArray[np.float32], precision: str) -> Matrix:
        """Round ``weight [n_out, n_in]``."""
        n_out, n_in = weight.shape
        if precision not in ("q8_0", "q4_0"):
            rounded = decode(encode(weight, PRECISIONS[precision]), PRECISIONS[precision], weight.shape)
            return cls(rounded.astype(np.float64)[:, None], np.ones((n_out, 1)), n_in)
        padded = np.pad(weight, ((0, 0), (0, -n_in % BLOCK)))  # [n_out, n_blocks * 32]
        stored = encode(padded, PRECISIONS[precision])
        scales = stored["d"].astype(np.float64).reshape(n_out, -1)
        steps = decode(stored, PRECISIONS[precision], (n_out, scales.shape[1], BLOCK)).astype(np.float64)
        return cls(np.rint(steps / np.where(scales == 0, 1, scales)[..., None]), scales, n_in)

    def rows(self, indices: Sequence[int]) -> Array:
        """Return rows as the numbers that they stand for: ``[n, n_in]``."""
        values = self.values[list(indices)] * self.scales[list(indices)][..., None]
        return values.reshape(len(indices), -1)[:, : self.n_in]

    @functools.cached_property
    def as_bfloat16(self) -> Array:
        """Return all rows, rounded: ``[n_out, n_in]``."""
        return as_bfloat16(self.rows(range(len(self.values))))[0]


def bfloat16_ways(isa: str, precision: str) -> tuple[bool, bool]:
    """Return whether products round their inputs to bfloat16: for tokens that were given, and for tokens drawn."""
    matrix_unit = isa == "amx"
    return matrix_unit and precision != "float32", matrix_unit and precision == "bfloat16"


class Model:
    """A checkpoint in ``precision``, keys and values in ``kv_precision``, on instruction set ``isa``.

    After :meth:`forward`, ``certain[i]`` says whether neither token i nor one before it had a close call.
    """

    def __init__(self, checkpoint: Checkpoint, precision: str, kv_precision: str = "float32", isa: str = "any") -> None:
        self.config: ModelConfig = checkpoint.config
        self.integer = precision in ("q8_0", "q4_0")
        self.bfloat16_ways = bfloat16_ways(isa, precision)
        self.kv_precision = kv_precision
        self.matrices: dict[str, Matrix] = {}
        self.vectors: dict[str, Array] = {}  # and wpe
        for name, tensor in checkpoint.tensors.items():
            if tensor.ndim == 1 or name == "wpe.weight":
                self.vectors[name] = tensor.astype(np.float64)
            else:
                self.matrices[name] = Matrix.store(tensor if name == "wte.weight" else tensor.T, precision)

    def forward(self, tokens: Sequence[int], given: int = 0) -> Array:
        """Return the logits ``[n_seq, n_vocab]`` after each of ``tokens``; the first ``given`` are a prompt."""
        self.certain = np.ones(len(tokens), dtype=bool)
        self.bfloat16 = np.where(np.arange(len(tokens)) < given, *self.bfloat16_ways)  # which rows are rounded to it
        wte = self.matrices["wte.weight"]
        x = wte.rows(tokens) + self.vectors["wpe.weight"][: len(tokens)]  # [n_seq, n_embd]
        for layer in range(self.config.n_layer):
            name = f"h.{layer}"
            x = x + self.attention(name, self.layer_norm(f"{name}.ln_1", x))
            hidden = reference.gelu(self.linear(f"{name}.mlp.c_fc", self.layer_norm(f"{name}.ln_2", x)))
            x = x + self.linear(f"{name}.mlp.c_proj", hidden)
        logits = self.product(self.layer_norm("ln_f", x), wte)  # [n_seq, n_embd] -> [n_seq, n_vocab]
        self.certain = np.logical_and.accumulate(self.certain)
        return logits

    def attention(self, name: str, x: Array) -> Array:
        """Compute one layer's masked self-attention in float, with keys and values rounded as the cache stores them."""
        n_seq, config = len(x), self.config
        qkv = self.linear(f"{name}.attn.c_attn", x).reshape(n_seq, 3, config.n_head, config.head_dim)
        q, k, v = qkv.transpose(1, 2, 0, 3)  # each [n_head, n_seq, head_dim]
        if self.kv_precision == "float16":
            for cached in (k, v):
                cached[...], close = as_float16(cached)
                self.certain &= ~close.any(axis=(0, 2))
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(config.head_dim)  # [n_head, n_seq, n_seq]
        out = reference.softmax(np.where(np.tri(n_seq, dtype=bool), scores, -np.inf)) @ v
        return self.linear(f"{name}.attn.c_proj", out.transpose(1, 0, 2).reshape(n_seq, config.n_embd))

    def linear(self, name: str, x: Array) -> Array:
        """Multiply ``x [n_seq, n_in]`` by the stored weight and add the bias."""
        return self.product(x, self.matrices[f"{name}.weight"]) + self.vectors[f"{name}.bias"]

    def product(self, x: Array, matrix: Matrix) -> Array:
        """Multiply ``x [n_seq, n_in]`` by the transpose of ``matrix``, with each row rounded in its own way."""
        out = np.empty((len(x), len(matrix.values)))
        if self.bfloat16.any():
            rounded, close = as_bfloat16(x[self.bfloat16])
            self.certain[self.bfloat16] &= ~close.any(axis=-1)
            out[self.bfloat16] = rounded @ matrix.as_bfloat16.T
        if not self.bfloat16.all():
            out[~self.bfloat16] = self.product_of_drawn(x[~self.bfloat16], matrix)
        return out

    def product_of_drawn(self, x: Array, matrix: Matrix) -> Array:
        """Do the same for rows that are not rounded to bfloat16: sum whole numbers in a block, floats across blocks."""
        if not self.integer:
            return x @ matrix.values[:, 0].T
        q, scales, close = quantize(x.astype(np.float32))  # [n, n_blocks, 32], [n, n_blocks], [n]
        self.certain[~self.bfloat16] &= ~close
        sums = np.einsum("mbi,nbi->mnb", q, matrix.values)  # exact: whole numbers below 2^53
        return np.einsum("mnb,nb,mb->mn", sums, matrix.scales, scales)

    def layer_norm(self, name: str, x: Array) -> Array:
        """Normalise each row to mean 0 and variance 1, then scale and shift it."""
        centred = x - x.mean(axis=-1, keepdims=True)
        normed = centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5)
        return normed * self.vectors[f"{name}.weight"] + self.vectors[f"{name}.bias"]


def quantize(x: NDArray[np.float32]) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Quantise rows of activations to int8 in blocks of 32, padded with zeros, in float32 like the engine.

    Returns whole numbers ``[n, n_blocks, 32]`` from -127 to 127, scales ``[n, n_blocks]``, and which rows hold a
    close call ``[n]``.
    """
    blocks = np.pad(x, ((0, 0), (0, -x.shape[1] % BLOCK))).reshape(len(x), -1, BLOCK)
    largest = np.abs(blocks).max(axis=-1, keepdims=True)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > TINY)
    steps = blocks * inverse
    close = np.abs(np.abs(steps - np.rint(steps)) - 0.5) < CLOSE
    scales = largest[..., 0] / np.float32(127)
    return np.rint(steps).astype(np.float64), scales.astype(np.float64), close.any(axis=(1, 2))


def as_bfloat16(x: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Round each number to the nearest bfloat16, ties to even; return also which were close calls.

    A number exactly half-way is not a close call: it is a float16 that came unchanged from the cache.
    """
    bits = x.astype(np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)
    step = np.spacing(np.abs(rounded)) * 2.0**16
    off = np.abs(np.abs(x - rounded) / step - 0.5)
    return rounded.astype(np.float64), (off < CLOSE) & (off > 0)


def as_float16(x: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Round each number to the nearest float16, at most the largest; return also which were close calls."""
    inside = np.clip(x, -LARGEST_FLOAT16, LARGEST_FLOAT16)
    rounded = inside.astype(np.float16)
    step = np.spacing(np.minimum(np.abs(rounded), np.float16(32768)))  # of the largest number it would overflow
    off = np.abs(inside - rounded) / step  # at most a half
    return rounded.astype(np.float64), np.abs(off - 0.5) < CLOSE_FLOAT16
