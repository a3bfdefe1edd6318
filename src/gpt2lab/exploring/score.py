"""A document as a model reads it, with an honest account of how much context each token had.

A text longer than the context is read in overlapping windows (:mod:`gpt2lab.scoring`): the context of a token grows to
``n_ctx`` and falls back where the next window takes over. Those places are the edges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt2lab.exploring.figures import mean
from gpt2lab.exploring.reading import Reading, read_text
from gpt2lab.scoring import check_stride

if TYPE_CHECKING:
    from gpt2lab.generation.completion import Prompt
    from gpt2lab.model import LanguageModel


@dataclass(frozen=True)
class Document:
    """A text as a model has read it.

    Attributes:
        edges: indices of the readings whose context is shorter than the one before.
        loss: the mean surprisal in nats, None for a text without tokens.
    """

    model_name: str
    n_ctx: int
    stride: int
    readings: list[Reading]
    edges: list[int]
    loss: float | None

    @property
    def summary(self) -> str:
        """The document's size, loss and perplexity in words."""
        if self.loss is None:
            return "no tokens to score"
        perplexity = math.exp(min(self.loss, 700.0))
        n = len(self.readings)
        return f"{n:,} token{'s' * (n != 1)}, loss {self.loss:.4f} nats a token, perplexity {perplexity:.3f}"

    @property
    def windows(self) -> str:
        """The amount of context that tokens had, in words."""
        if not self.readings:
            return ""
        first = self.readings[0].context
        text = f"The first token had {first} token before it"
        if not self.edges:
            return f"{text}, and each later one had all earlier tokens: the text fits the context of {self.n_ctx:,}."
        least = min(self.readings[number].context for number in self.edges)
        return (
            f"{text}, and later ones had more, up to the context of {self.n_ctx:,}. "
            f"Windows advance by {self.stride:,} tokens. At the {len(self.edges):,} marked places context falls back "
            f"to {least:,}."
        )


def read_document(model: LanguageModel, text: Prompt, model_name: str, stride: int | None = None) -> Document:
    """Read ``text``, of any length. Raises :class:`~gpt2lab.errors.UsageError` for a stride outside 1 … n_ctx."""
    readings = read_text(model, text, stride)
    edges = [n for n in range(1, len(readings)) if readings[n].context < readings[n - 1].context]
    loss = mean([reading.surprisal for reading in readings])
    return Document(model_name, model.config.n_ctx, check_stride(stride, model.config.n_ctx), readings, edges, loss)
