"""Scores of texts: the log-probability of every token under a model.

The first token is conditioned on ``<|endoftext|>``. A text longer than the context is read in windows of ``n_ctx``
tokens that advance by ``stride``: each token is scored once, in the first window that reaches it; after the first
window it has at least ``n_ctx - stride`` tokens before it. This module knows nothing of tokenizers.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpt2lab.errors import UsageError

if TYPE_CHECKING:
    import numpy.typing as npt

    from gpt2lab.engines.protocol import Engine

CHUNK = 64
"""The most tokens whose logits are held at a time: 64 rows of GPT-2's vocabulary are 13 MB."""


@dataclass(frozen=True)
class ScoreResult:
    """The score of a text.

    Attributes:
        tokens: the ids scored.
        logprobs: natural log-probability of each of ``tokens`` given those before it.
        n_bytes: UTF-8 bytes that the tokens spell, None if the model has no tokenizer.
        texts: the text that each of ``tokens`` adds, if it is known.
    """

    tokens: list[int]
    logprobs: list[float]
    n_bytes: int | None
    texts: list[str] | None = None

    def __repr__(self) -> str:
        bits = "" if self.bits_per_byte is None else f", {self.bits_per_byte:.3f} bits a byte"
        numbers = f"loss {self.loss:.4f} nats a token, perplexity {self.perplexity:.3f}{bits}"
        return f"<ScoreResult of {len(self.tokens):,} tokens: {numbers}>"

    def _repr_html_(self) -> str:
        """Return the text for a notebook, each token coloured by its probability, and the figures."""
        from gpt2lab.markup import fragment, html

        texts = self.texts if self.texts is not None else [f"#{id} " for id in self.tokens]
        records = html.probable(self.tokens, texts, self.logprobs, "".join(texts))
        figures = repr(self).partition(": ")[2].rstrip(">")
        about = fragment.faint(f"{len(self.tokens):,} tokens, {figures}")
        coloured = html.titled_tokens(records, "The text, token by token")
        return fragment.fragment(f"{coloured}{html.tints('Probability of a token:')}{about}")

    @property
    def loss(self) -> float:
        """Mean negative log-probability of a token in nats; NaN for an empty text."""
        return -math.fsum(self.logprobs) / len(self.tokens) if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        """exp(loss): per token, not per word; infinite if it overflows a float."""
        try:
            return math.exp(self.loss)
        except OverflowError:
            return math.inf

    @property
    def bits_per_byte(self) -> float | None:
        """Negative log2-probability of the whole text divided by its bytes: comparable between vocabularies."""
        return -math.fsum(self.logprobs) / math.log(2) / self.n_bytes if self.n_bytes else None


def check_stride(stride: int | None, n_ctx: int) -> int:
    """Return ``stride``, default ``n_ctx // 2``. Raises :class:`~gpt2lab.errors.UsageError` outside 1 … n_ctx."""
    if stride is None:
        return max(1, n_ctx // 2)
    if not 1 <= stride <= n_ctx:
        raise UsageError(f"stride must be from 1 to the model's context of {n_ctx}, got {stride}")
    return stride


def windows(n_targets: int, n_ctx: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Yield (start, first, end) of each window: inputs from ``start`` on score the targets ``first … end - 1``."""
    start = first = 0
    while first < n_targets:
        end = min(start + n_ctx, n_targets)
        yield start, first, end
        start, first = start + stride, end


def token_logprobs(engine: Engine, tokens: Sequence[int], stride: int) -> list[float]:
    """Return the natural log-probability of each of ``tokens[1:]`` given those before it in its window."""
    result: list[float] = []
    for at, _, logits in window_logits(engine, tokens, stride):
        targets = np.array(tokens[at + 1 : at + 1 + len(logits)], np.int64)
        result += log_probabilities(logits, targets).tolist()
    return result


def window_logits(
    engine: Engine, tokens: Sequence[int], stride: int
) -> Generator[tuple[int, int, npt.NDArray[np.float32]], None, None]:
    """Yield (at, start, logits ``[n, n_vocab]``), a few tokens at a time: row i is for ``tokens[at + i + 1]``.

    The model computes that row from ``tokens[start : at + i + 1]``, the tokens of its window.
    """
    inputs = tokens[:-1]
    for start, first, end in windows(len(inputs), engine.config.n_ctx, stride):
        sequence = engine.new_sequence()
        try:
            if first > start:
                engine.forward([sequence], [inputs[start:first]], "none")
            for at in range(first, end, CHUNK):
                yield at, start, engine.forward([sequence], [inputs[at : min(at + CHUNK, end)]], "all")
        finally:
            engine.free_sequence(sequence)


def log_probabilities(logits: npt.NDArray[np.float32], ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the natural log of softmax(logits) at one id per row: [n, n_vocab], [n] -> [n], summed in float64."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(shifted, ids[:, None], axis=-1)[:, 0].astype(np.float64)
    result: npt.NDArray[np.float64] = chosen - np.log(np.exp(shifted).sum(axis=-1, dtype=np.float64))
    return result
