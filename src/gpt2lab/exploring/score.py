"""A document as a model reads it, with an honest account of how much context each token had.

A text longer than the context is read in overlapping windows (:mod:`gpt2lab.scoring`): the context of a token grows to
``n_ctx`` and falls back where the next window takes over. Those places are the edges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpt2lab.exploring.document import Document
from gpt2lab.exploring.figures import mean
from gpt2lab.exploring.reading import read_text
from gpt2lab.scoring import check_stride

if TYPE_CHECKING:
    from gpt2lab.generation.completion import Prompt
    from gpt2lab.model import LanguageModel


def read_document(model: LanguageModel, text: Prompt, model_name: str = "", stride: int | None = None) -> Document:
    """Read ``text``, of any length. Raises :class:`~gpt2lab.errors.UsageError` for a stride outside 1 … n_ctx."""
    readings = read_text(model, text, stride)
    edges = [n for n in range(1, len(readings)) if readings[n].context < readings[n - 1].context]
    loss = mean([reading.surprisal for reading in readings])
    return Document(model_name, model.config.n_ctx, check_stride(stride, model.config.n_ctx), readings, edges, loss)
