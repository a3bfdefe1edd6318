"""The results of an evaluation: named figures with their standard errors.

Errors are one standard deviation. They reflect only that the data set is a sample of all such texts, not differences in
how the figure is defined.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Figure:
    """One number."""

    protocol: str
    """The way in which it was measured, in the words of ``docs/evaluate.md``."""
    metric: str
    """``accuracy`` (a fraction), ``perplexity per token``, ``bits per byte``, …"""
    value: float
    error: float
    """Standard error; NaN for a single observation."""


@dataclass(frozen=True)
class Evaluation:
    """All figures of one task."""

    task: str
    figures: list[Figure]
    counts: dict[str, int] = field(default_factory=dict)
    """The amounts behind the figures: ``examples``, ``tokens``, ``bytes``, …"""


def accuracy(protocol: str, hits: Sequence[bool], metric: str = "accuracy") -> Figure:
    """Return the fraction of ``hits`` that are true."""
    n = len(hits)
    mean = sum(hits) / n if n else math.nan
    return Figure(protocol, metric, mean, math.sqrt(mean * (1 - mean) / (n - 1)) if n > 1 else math.nan)


def perplexity(protocol: str, losses: Sequence[float], metric: str) -> Figure:
    """Return exp of the mean of ``losses`` (nats) of independent examples, with its error by the delta method."""
    n = len(losses)
    value = exp(float(np.mean(losses))) if n else math.nan
    return Figure(protocol, metric, value, value * float(np.std(losses, ddof=1)) / math.sqrt(n) if n > 1 else math.nan)


def exp(value: float) -> float:
    """Return e to the power of ``value``, infinity where a float would overflow."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


@dataclass
class Losses:
    """The loss sums of a text's windows, from which its perplexity follows."""

    nats: list[float] = field(default_factory=list)
    """Negative log-probability of each window's tokens."""
    tokens: list[int] = field(default_factory=list)

    def add(self, nats: float, tokens: int) -> None:
        """Count one window."""
        self.nats.append(nats)
        self.tokens.append(tokens)

    def figures(self, protocol: str, n_bytes: int, n_words: int | None = None) -> list[Figure]:
        """Return perplexity per token and, if ``n_words`` is given, per word, and bits per byte of ``n_bytes``."""
        total, n_tokens = math.fsum(self.nats), sum(self.tokens)
        error = self._error()
        units = {"perplexity per token": n_tokens} | ({"perplexity per word": n_words} if n_words else {})
        found = []
        for metric, n in units.items():
            value = exp(total / n) if n else math.nan
            found.append(Figure(protocol, metric, value, value * error / n if n else math.nan))
        per_bit = math.log(2) * n_bytes
        bits, of_bits = (total / per_bit, error / per_bit) if n_bytes else (math.nan, math.nan)
        return [*found, Figure(protocol, "bits per byte", bits, of_bits)]

    def _error(self) -> float:
        """Return the standard error of the sum of all nats at this number of tokens, assuming independent windows."""
        count = len(self.nats)
        if count < 2:
            return math.nan
        nats, tokens = np.asarray(self.nats), np.asarray(self.tokens)
        off = nats - nats.sum() / tokens.sum() * tokens
        return float(np.sqrt(np.square(off).sum() * count / (count - 1)))
