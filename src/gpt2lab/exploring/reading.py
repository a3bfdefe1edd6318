"""A text as the model reads it: the surprisal of each token, and the tokens that the model expected in its place.

All numbers are those of the unmodified model, in natural logarithms (nats), unless stated otherwise. This module knows
nothing of where a text comes from or how it is shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gpt2lab.distribution import token_text, without_text
from gpt2lab.generation.plan import fed_tokens, opened_tokens, or_start, prompt_tokens
from gpt2lab.sampling.declaration import SamplingParams
from gpt2lab.sampling.rules import distribution, largest, log_softmax
from gpt2lab.scoring import check_stride, window_logits

if TYPE_CHECKING:
    from gpt2lab.generation.completion import Prompt
    from gpt2lab.model import LanguageModel
    from gpt2lab.tokenizer import Tokenizer

Doubles = npt.NDArray[np.float64]

TOP = 5
"""Alternatives kept for each token."""


@dataclass(frozen=True)
class Alternative:
    """A token that was possible instead; ``text`` is empty if the model has no tokenizer."""

    id: int
    text: str
    probability: float


@dataclass(frozen=True)
class Reading:
    """The model's view of one token.

    Attributes:
        id: the token's id.
        text: the text that it adds, empty while a character is incomplete, or without a tokenizer.
        logprob: the natural logarithm of its probability.
        rank: 1 for the likeliest token; ties go to the lower id.
        entropy: the entropy of the distribution that it comes from, in nats.
        context: the number of tokens that the model had before it.
        alternatives: the likeliest tokens in its place.
        drawn_probability: its probability after all stages of sampling, if it was read as a sample.
        drawn_entropy: the entropy of the distribution after all stages, in nats.
    """

    id: int
    text: str
    logprob: float
    rank: int
    entropy: float
    context: int
    alternatives: list[Alternative]
    drawn_probability: float | None = None
    drawn_entropy: float | None = None

    @property
    def surprisal(self) -> float:
        """Minus the log-probability, in nats."""
        return -self.logprob

    @property
    def probability(self) -> float:
        """The token's probability."""
        return math.exp(self.logprob)


def read_sample(
    model: LanguageModel, prompt: Prompt, completion: Sequence[int], params: SamplingParams
) -> list[Reading]:
    """Read ``completion`` after ``prompt``; together they must fit the model's context.

    The readings include the distribution that ``params`` draw from.
    """
    given = prompt_tokens(prompt, model.config, model.tokenizer)
    before = or_start(given, model.tokenizer)
    return list(_read(model, [*before, *completion], len(before), model.config.n_ctx, params, bool(given)))


def read_text(model: LanguageModel, text: Prompt, stride: int | None = None) -> list[Reading]:
    """Read a text of any length, in windows as :mod:`gpt2lab.scoring` describes.

    The first token is conditioned on ``<|endoftext|>``; a model without one reads from the second token on. The numbers
    equal those of :meth:`~gpt2lab.LanguageModel.score`.
    """
    stride = check_stride(stride, model.config.n_ctx)
    tokens = opened_tokens(text, model.config, model.tokenizer)
    return list(_read(model, tokens, 1, stride, None, False)) if len(tokens) > 1 else []


def last_logits(model: LanguageModel, prompt: Prompt) -> npt.NDArray[np.float32]:
    """Return the logits ``[n_vocab]`` of the token after ``prompt`` (which may be empty), -inf for ids without text."""
    tokens = fed_tokens(prompt, model.config, model.tokenizer)
    engine = model.exact_engine
    sequence = engine.new_sequence()
    try:
        row: npt.NDArray[np.float32] = without_text(engine.forward([sequence], [tokens], "last"), model.tokenizer)[0]
        return row
    finally:
        engine.free_sequence(sequence)


def entropy(probabilities: Doubles) -> Doubles:
    """Return the entropy in nats, over the last axis; probabilities of 0 add nothing."""
    logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
    result: Doubles = np.abs((probabilities * logs).sum(axis=-1))  # every term is 0 or below
    return result


def _read(
    model: LanguageModel,
    tokens: list[int],
    first: int,
    stride: int,
    params: SamplingParams | None,
    counts_all: bool,
) -> Iterator[Reading]:
    """Yield readings of ``tokens[first:]``. Penalties count earlier tokens, ``tokens[0]`` only if ``counts_all``."""
    decoder = model.tokenizer.incremental_decoder() if model.tokenizer else None
    known = model.tokenizer.n_vocab if model.tokenizer else 0
    for at, start, rows in window_logits(model.exact_engine, tokens, stride):
        skipped = max(0, first - 1 - at)
        logits = without_text(rows[skipped:], model.tokenizer) if params is not None else rows[skipped:]
        if not len(logits):
            continue
        at += skipped
        logs = log_softmax(logits)
        probabilities = np.exp(logs)
        entropies = entropy(probabilities)
        for i, row in enumerate(logs):
            id = tokens[at + i + 1]
            drawn: tuple[float, float] | tuple[None, None] = (None, None)
            if params is not None:
                history = tokens[0 if counts_all else 1 : at + i + 1]
                drawn_from = distribution(logits[i], params, history)
                drawn = float(drawn_from[id]), float(entropy(drawn_from))
            yield Reading(
                id=id,
                text=decoder.feed(id) if decoder and id < known else "",
                logprob=float(row[id]),
                rank=1 + int(np.count_nonzero(row > row[id])) + int(np.count_nonzero(row[:id] == row[id])),
                entropy=float(entropies[i]),
                context=at + i + 1 - start,
                alternatives=likeliest(probabilities[i], TOP, model.tokenizer),
                drawn_probability=drawn[0],
                drawn_entropy=drawn[1],
            )


def likeliest(probabilities: Doubles, top: int, tokenizer: Tokenizer | None) -> list[Alternative]:
    """Return the ``top`` likeliest tokens of ``probabilities [n_vocab]`` above 0, lower ids first among equals."""
    ids = largest(probabilities, min(top, int(np.count_nonzero(probabilities)))).tolist()
    return [Alternative(id, token_text(tokenizer, id), float(probabilities[id])) for id in ids]
