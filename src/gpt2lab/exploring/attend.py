"""Attention of every layer and head, and the logit lens: the prediction of each layer if it were the last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpt2lab.distribution import token_text
from gpt2lab.errors import UsageError
from gpt2lab.exploring.attend_page import Attention
from gpt2lab.exploring.reading import likeliest
from gpt2lab.generation.plan import fed_tokens
from gpt2lab.sampling.rules import log_softmax

if TYPE_CHECKING:
    from gpt2lab.exploring.reading import Alternative
    from gpt2lab.generation.completion import Prompt
    from gpt2lab.inside.tracing import Trace
    from gpt2lab.model import LanguageModel

MOST_TOKENS = 256
"""The longest prompt: each head's picture is tokens by tokens, and larger ones are unreadable and fill files."""


def attend(model: LanguageModel, prompt: Prompt, top: int = 3) -> Attention:
    """Run ``prompt`` (if empty, the token that starts a text) through all layers and record attention and predictions.

    Raises :class:`~gpt2lab.errors.UsageError` for more than :data:`MOST_TOKENS` tokens or the model's context.
    """
    ids = fed_tokens(prompt, model.config, model.tokenizer)
    most = min(MOST_TOKENS, model.config.n_ctx)
    if len(ids) > most:
        raise UsageError(f"the prompt has {len(ids)} tokens, more than the {most} that attend can show: shorten it")
    trace = model.trace(ids)
    places = [_guesses(model, trace, position, top) for position in range(len(ids))]
    return Attention(
        prompt=prompt if isinstance(prompt, str) else "",
        tokens=[token_text(model.tokenizer, id) or f"#{id}" for id in ids],
        ids=list(ids),
        lens=[list(layer) for layer in zip(*places, strict=True)],
        weights=trace.attention,
    )


def _guesses(model: LanguageModel, trace: Trace, position: int, top: int) -> list[list[Alternative]]:
    """Return the likeliest next tokens after one position, for the input and then each layer."""
    known = model.tokenizer.n_vocab if model.tokenizer else model.config.n_vocab
    probabilities = np.exp(log_softmax(trace.lens(position)[:, :known]))
    return [likeliest(row, top, model.tokenizer) for row in probabilities]
