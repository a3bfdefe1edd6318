"""The speeds that a machine's limits allow: at most N tokens per second for a prompt, a decode step or a batch.

A prompt is limited by arithmetic, one sequence's decode steps by memory bandwidth, and a batch by the slower of
the two. This module measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from gpt2lab.benchmarking import bytes_per_step
from gpt2lab.config import ModelConfig

EIGHT_BITS = ("int8_tiles_gop_s", "int8_gop_s", "float32_gflop_s")
ARITHMETIC = {
    "float32": ("float32_gflop_s",),
    "bfloat16": ("bfloat16_tiles_gflop_s", "float32_gflop_s"),
    "int8": EIGHT_BITS,
    "int4": EIGHT_BITS,
}
"""Precision → the limits of its products; the first one that the machine has counts.

The integer precisions multiply each weight by the two halves of an input of 15 bits, so they reach half of it at most.
"""


def arithmetic_limit(precision: str, limits: Mapping[str, float]) -> str:
    """Return the name of the arithmetic limit of ``precision`` among the measured ``limits``."""
    return next(name for name in ARITHMETIC[precision] if name in limits)


def prefill_operations(config: ModelConfig, n_tokens: int) -> float:
    """Return the multiplications and additions for a prompt: products of every layer, attention, one token's head."""
    products = 2 * 12 * config.n_embd**2 * n_tokens
    attention = 2 * 2 * config.n_embd * n_tokens * (n_tokens + 1) / 2
    return config.n_layer * (products + attention) + 2 * config.n_vocab * config.n_embd


def step_operations(config: ModelConfig, context: int) -> float:
    """Return the multiplications and additions for a token with its head, after ``context`` others."""
    layer = 2 * 12 * config.n_embd**2 + 2 * 2 * config.n_embd * context
    return config.n_layer * layer + 2 * config.n_vocab * config.n_embd


def most_tokens_s(
    config: ModelConfig, precision: str, batch: int, prompt: int, new: int, bandwidth: float, operations: float
) -> float:
    """Return the tokens per second that the limits allow, counted as ``drivers/common.py`` counts them.

    Args:
        batch, prompt, new: sequences, tokens of each prompt, and tokens drawn after each.
        bandwidth: bytes per second that memory gives.
        operations: multiplications and additions per second.
    """
    first = prefill_operations(config, prompt) / operations
    if new == 1:
        return prompt / first
    context = prompt + new // 2
    read = bytes_per_step(config, precision, context, batch) / bandwidth
    if batch == 1:
        return 1 / read
    step = max(read, batch * step_operations(config, context) / operations)
    return batch * new / (batch * first + (new - 1) * step)
