"""GPT-2's forward pass in float32, int8 and int4, to the bit: the order of every operation and rounding, in NumPy.

``reference.py`` says what GPT-2 computes; this module says how the native core rounds it on the way, on every
processor. It is slow and written to be read. If a bit changes, ``gpt2lab.version.CONTRACT`` rises. docs/precision.md
explains the rules:

* A product of float32 is one chain of fused multiply-adds over the inputs in their order, and it begins with the bias.
* In int8 and int4 the inputs of a product are rounded to whole numbers of 15 bits, 256 of them under one scale. Their
  sum of products is exact; the scales follow, block by block. No fused multiply-add occurs, not even in attention.
* Every other operation is rounded separately. A sum over a row goes through 16 lanes, which are then added in halves.
* Attention takes positions in spans of 256 and rescales its sums if a later span has a larger score. Its scores are
  multiplied by log2 e, so its probabilities are powers of two. In float32 its multiply-adds are fused, also those of
  the powers' polynomial, but not over an int8 cache.
* Keys and values in float16 or bfloat16 are rounded first. Over those in int8, attention's sums are exact, too: queries
  are rounded like the inputs of a product, and so are the probabilities of a span, each multiplied by its value's
  scale.

Only operations that IEEE 754 defines occur: + - * / and square roots, but not ``np.exp``, ``np.sum`` or ``@``, whose
last bits differ between processors and libraries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2lab.config import ModelConfig
from gpt2lab.weights.integers import BLOCK, Integers, encode, is_matrix, is_output_major, padded

Array = NDArray[np.float32]
Weights = Mapping[str, Array]
Matrix = Array | Integers
"""A weight ``[n_out, n_in]``."""

LANES = 16
SPAN = 256
LOG2_E = np.float32(1.44269504)


def forward(
    weights: Weights,
    config: ModelConfig,
    tokens: Sequence[int],
    kv_precision: str = "float32",
    precision: str = "float32",
) -> Array:
    """Return the logits ``[n_seq, n_vocab]`` of the token after each of ``tokens`` (ids ``[n_seq]``).

    ``weights`` have the names and shapes of ``weights.checkpoint``; their matrices are rounded to ``precision``
    (``"float32"``, ``"int8"`` or ``"int4"``). Attention sees keys and values that are rounded to ``kv_precision``
    (``"float32"``, ``"float16"``, ``"bfloat16"`` or ``"int8"``). Prompts and drawn tokens are computed alike, so there
    is no cache to continue from.
    """
    matrices = {name: rounded(name, weight, precision) for name, weight in weights.items() if is_matrix(name)}

    def linear(name: str, x: Array) -> Array:
        return product(x, matrices[f"{name}.weight"], weights[f"{name}.bias"])

    wte, epsilon = matrices["wte.weight"], np.float32(config.layer_norm_epsilon)
    head = wte if config.tie_word_embeddings else matrices["lm_head.weight"]
    embedding = wte.decode() if isinstance(wte, Integers) else wte
    x: Array = embedding[np.asarray(tokens)] + weights["wpe.weight"][: len(tokens)]  # [n_seq, n_embd]
    for layer in range(config.n_layer):
        name = f"h.{layer}"
        qkv = linear(f"{name}.attn.c_attn", layer_norm(weights, f"{name}.ln_1", x, epsilon))
        mixed = attention(qkv, config, layer, kv_precision, fused=precision == "float32")
        x = x + linear(f"{name}.attn.c_proj", mixed)
        hidden = linear(f"{name}.mlp.c_fc", layer_norm(weights, f"{name}.ln_2", x, epsilon))
        hidden = ACTIVATIONS[config.activation](hidden)
        x = x + linear(f"{name}.mlp.c_proj", hidden)
    return product(layer_norm(weights, "ln_f", x, epsilon), head, np.zeros(config.n_vocab, np.float32))


def rounded(name: str, weight: Array, precision: str) -> Matrix:
    """Return a weight ``[n_in, n_out]``, or an embedding ``[n_vocab, n_embd]``, as a matrix in ``precision``."""
    matrix = np.ascontiguousarray(weight if is_output_major(name) else weight.T)
    return matrix if precision == "float32" else encode(matrix, precision)


def product(x: Array, matrix: Matrix, first: Array) -> Array:
    """Return ``first [n_out]`` + ``x [n_seq, n_in]`` · the transpose of ``matrix``."""
    if not isinstance(matrix, Integers):
        return chain(x, matrix.T, first, fused=True)
    whole, scales = inputs(x)
    columns = padded(matrix.whole, BLOCK).astype(np.int64)  # [n_out, n_blocks, 256]
    y = np.broadcast_to(first, (len(x), len(columns)))
    for block in range(scales.shape[1]):
        sums: Array = np.einsum("si,oi->so", whole[:, block], columns[:, block]).astype(np.float32)  # exact before
        y = y + sums * (matrix.scales[:, block] * scales[:, block, None])
    return y


def inputs(x: Array) -> tuple[NDArray[np.int64], Array]:
    """Round rows to whole numbers of at most 16319, ``[..., n_blocks, 256]``, and scales ``[..., n_blocks]``.

    Numbers must be finite: the core's scale of a block with others is infinite or NaN.
    """
    blocks = padded(x, BLOCK)
    largest = np.abs(blocks).max(axis=-1)
    tiny = largest < np.float32(1e-30)
    inverse = np.divide(np.float32(16319), largest, out=np.zeros_like(largest), where=~tiny)
    scales: Array = np.where(tiny, np.float32(0), largest / np.float32(16319))
    return np.rint(blocks * inverse[..., None]).astype(np.int64), scales


def chain(x: Array, matrix: Array, first: Array | np.float32, *, fused: bool) -> Array:
    """Return ``first + x [..., m, k] · matrix [..., k, n]``: for each number one chain of multiply-adds."""
    y = np.broadcast_to(first, (*x.shape[:-1], matrix.shape[-1]))
    for i in range(x.shape[-1]):
        a, b = x[..., i : i + 1], matrix[..., i : i + 1, :]
        y = fma(a, b, y) if fused else a * b + y
    return y


def attention(qkv: Array, config: ModelConfig, layer: int, kv_precision: str, *, fused: bool) -> Array:
    """Return the mixed values ``[n_seq, n_embd]`` of one layer from ``qkv [n_seq, 3 n_embd]``.

    Arrays are ``[n_head, n_seq, …]``. A position that a row does not see has probability 0, which leaves its sums
    unchanged.
    """
    n_seq = len(qkv)
    q, *keys_values = qkv.reshape(n_seq, 3, config.n_head, config.head_dim).transpose(1, 2, 0, 3)
    (k, k_scales), (v, v_scales) = (stored(numbers, kv_precision) for numbers in keys_values)
    scale = np.float32(1) / np.sqrt(np.float32(config.head_dim)) if config.scale_attn_weights else np.float32(1)
    if config.scale_attn_by_inverse_layer_idx:
        scale = scale / np.float32(layer + 1)
    scale = scale * LOG2_E
    visible = np.tri(n_seq, dtype=bool)
    fused = fused and kv_precision != "int8"

    largest = np.full((config.n_head, n_seq, 1), -np.inf, np.float32)
    weight = np.zeros_like(largest)
    mixed: Array = np.zeros_like(q)
    for first in range(0, n_seq, SPAN):
        span = slice(first, first + SPAN)
        if kv_precision == "int8":
            scores = exact_scores(q, k[:, span], k_scales[:, span], scale)
        else:
            scores = chain(q, k[:, span].swapaxes(1, 2), np.float32(0), fused=fused) * scale
        scores = np.where(visible[:, span], scores, np.float32(-np.inf))
        before, largest = largest, np.maximum(largest, scores.max(axis=-1, keepdims=True))
        probabilities, factor = (power_of_negative(x - largest, fused=fused) for x in (scores, before))
        weight = weight * factor + total(probabilities)[..., None]
        if kv_precision == "int8":
            mixed = mixed * factor + exact_mix(probabilities * v_scales[:, None, span], v[:, span])
        else:
            mixed = chain(probabilities, v[:, span], mixed * factor, fused=fused)
    out: Array = (mixed * (np.float32(1) / weight)).transpose(1, 0, 2).reshape(n_seq, config.n_embd)
    return out


def exact_scores(q: Array, k: NDArray[np.int64], k_scales: Array, scale: np.float32) -> Array:
    """Return the scores ``[n_head, n_seq, n_span]`` of keys in int8; a query has a scale for every 256 numbers."""
    whole, q_scales = inputs(q)
    keys = padded(k, BLOCK)  # [n_head, n_span, n_blocks, 256]
    scores: Array = np.zeros((), np.float32)
    for block in range(keys.shape[2]):
        sums = np.einsum("hsi,hpi->hsp", whole[:, :, block], keys[:, :, block]).astype(np.float32)  # exact before
        scores = scores + sums * (k_scales[:, None] * (q_scales[:, :, block, None] * scale))
    return scores


def exact_mix(weights: Array, v: NDArray[np.int64]) -> Array:
    """Return the sums ``[n_head, n_seq, head_dim]`` of int8 values times ``weights [n_head, n_seq, n_span]``."""
    whole, scales = inputs(weights)  # a span is one block
    sums: Array = np.einsum("hsp,hpi->hsi", whole[:, :, 0, : v.shape[1]], v).astype(np.float32)  # exact before
    return sums * scales


def stored(x: Array, kv_precision: str) -> tuple[NDArray[Any], Array]:
    """Round keys or values ``[n_head, n_seq, head_dim]``; also return their scales ``[n_head, n_seq]``.

    In int8 they become whole numbers, the largest of a row ±127; otherwise all scales are 1. Numbers must be finite.
    """
    if kv_precision in ROUNDINGS:
        return ROUNDINGS[kv_precision](x), np.ones(x.shape[:-1], np.float32)
    largest = np.abs(x).max(axis=-1)
    tiny = largest < np.float32(1e-30)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=~tiny)
    scales: Array = np.where(tiny, np.float32(0), largest / np.float32(127))
    return np.rint(x * inverse[..., None]).astype(np.int64), scales


def to_half(x: Array) -> Array:
    """Round to float16; larger numbers become the largest."""
    return np.clip(x, np.float32(-65504), np.float32(65504)).astype(np.float16).astype(np.float32)


def to_bfloat16(x: Array) -> Array:
    """Round to the upper half of a float32: to nearest, ties to even. Numbers must be finite."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    upper: Array = ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)
    return upper


ROUNDINGS = {"float32": lambda x: x, "float16": to_half, "bfloat16": to_bfloat16}


def layer_norm(weights: Weights, name: str, x: Array, epsilon: np.float32) -> Array:
    """Normalise each row to mean 0 and variance 1, then scale and shift it."""
    n = np.float32(x.shape[-1])
    centred: Array = x - (total(x) / n)[:, None]
    scale = np.float32(1) / np.sqrt(total(centred * centred) / n + epsilon)
    normed: Array = centred * scale[:, None] * weights[f"{name}.weight"] + weights[f"{name}.bias"]
    return normed


def gelu(x: Array) -> Array:
    """Apply GELU in its tanh form, with ``(1 + tanh u) / 2`` written as ``1 / (1 + e^-2u)``."""
    u = (x + x * x * x * np.float32(0.044715)) * np.float32(0.7978845608028654)
    out: Array = x / (exp(u * np.float32(-2)) + np.float32(1))
    return out


def exact_gelu(x: Array) -> Array:
    """Apply ``x · P(Z < x)`` for a standard normal Z, written as ``max(x, 0) - |x| · P(Z < -|x|)``.

    ``P(Z < -a)`` is ``e^(-a²/2)`` times a polynomial in ``t = 1 / (1 + 0.33 a)``.
    """
    a = np.abs(x)
    t = np.float32(1) / (a * np.float32(0.33) + np.float32(1))
    power = np.float32(0.044507973)
    for coefficient in (-0.21570642, 0.3217816, -0.07963651, 0.17554803, 0.12108809, 0.13241725, 0.0):
        power = power * t + np.float32(coefficient)
    out: Array = relu(x) - a * (exp(x * x * np.float32(-0.5)) * power)
    return out


def relu(x: Array) -> Array:
    """Replace negative numbers by 0."""
    out: Array = np.where(x > 0, x, np.float32(0))
    return out


def silu(x: Array) -> Array:
    """Apply ``x · sigmoid(x)``."""
    out: Array = x / (exp(-x) + np.float32(1))
    return out


ACTIVATIONS = {"gelu_new": gelu, "gelu": exact_gelu, "relu": relu, "silu": silu}


def exp(x: Array) -> Array:
    """Return e^x as 2^n · 2^(r · log2 e) with n = round(x / ln 2) and r the remainder; 0 below -87.33."""
    within = np.minimum(np.maximum(x, np.float32(-87.33)), np.float32(88.37))
    n = rounded_to_whole(within * LOG2_E)
    r = (within - n * np.float32(0.693359375)) + n * np.float32(2.12194440e-4)  # ln 2, its upper part exact
    out: Array = np.where(x < np.float32(-87.33), np.float32(0), power_of_parts(n, r * LOG2_E, fused=False))
    return out


def power_of_negative(x: Array, *, fused: bool) -> Array:
    """Return 2^x for x ≤ 0; 0 below -126."""
    within = np.maximum(x, np.float32(-126))
    n = rounded_to_whole(within)
    out: Array = np.where(x < np.float32(-126), np.float32(0), power_of_parts(n, within - n, fused=fused))
    return out


def rounded_to_whole(x: Array) -> Array:
    """Round to nearest, ties to even, by adding 1.5 · 2^23."""
    magic = np.float32(12582912)
    whole: Array = (x + magic) - magic
    return whole


def power_of_parts(n: Array, f: Array, *, fused: bool) -> Array:
    """Return 2^n · 2^f for whole ``n`` and ``|f| ≤ 1/2``, with a polynomial of degree 5 for 2^f."""
    power = np.float32(0.00132647145)
    for coefficient in (0.00967151299, 0.0555073395, 0.240222424, 0.693147004, 1.0):
        power = fma(power, f, np.float32(coefficient)) if fused else power * f + np.float32(coefficient)
    scaled: Array = np.ldexp(power, n.astype(np.int32))
    return scaled


def total(x: Array) -> Array:
    """Add the last axis: number i goes to lane i mod 16, and the lanes are added in halves."""
    n = x.shape[-1]
    padded = np.zeros((*x.shape[:-1], -(-n // LANES) * LANES), np.float32)
    padded[..., :n] = x
    lanes = np.zeros((*x.shape[:-1], LANES), np.float32)
    for first in range(0, n, LANES):
        lanes = lanes + padded[..., first : first + LANES]
    for half in (8, 4, 2, 1):
        lanes = lanes[..., :half] + lanes[..., half : 2 * half]
    folded: Array = lanes[..., 0]
    return folded


def fma(a: Array, b: Array, c: Array) -> Array:
    """Return a · b + c with one rounding.

    The product of two float32 is exact in float64. The float64 sum is rounded to odd (where it is inexact, its last bit
    is set), so that rounding it to float32 is as good as rounding once.
    """
    exact, term = np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64)
    sum_ = exact + term
    part = sum_ - exact
    error = (exact - (sum_ - part)) + (term - part)  # sum_ + error is exact
    bits = sum_.view(np.int64)
    inexact = (error < 0) | (error > 0)
    step = np.where(inexact & (bits & 1 == 0), np.where((error < 0) == (sum_ < 0), 1, -1), 0)
    rounded: Array = (bits + step).view(np.float64).astype(np.float32)
    return rounded
