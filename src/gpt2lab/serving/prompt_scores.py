"""Log-probabilities of a prompt's own tokens, for ``echo`` with ``logprobs``, read in pieces so that others go on.

They are computed in the precision served. Nothing comes before the first token, so it has no probability, as in
OpenAI's API. ``gpt2lab score`` computes in float32 and conditions the first token on ``<|endoftext|>``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gpt2lab.sampling.rules import largest
from gpt2lab.scoring import log_probabilities, window_logits
from gpt2lab.serving.samples import Entry, Top

if TYPE_CHECKING:
    import numpy.typing as npt

    from gpt2lab.engines.protocol import Engine
    from gpt2lab.serving.worker import Reading
    from gpt2lab.tokenizer import Tokenizer


def score_prompt(engine: Engine, tokenizer: Tokenizer, tokens: Sequence[int], n_top: int) -> Reading:
    """Return entries of all ``tokens``, each with the ``n_top`` likeliest ids in its place; yields after each piece."""
    if not tokens:
        return []
    scored: list[tuple[float | None, Top]] = [(None, ())]
    with closing(window_logits(engine, tokens, engine.config.n_ctx)) as pieces:  # one window: a prompt fits the context
        for at, _, logits in pieces:
            targets = np.array(tokens[at + 1 : at + 1 + len(logits)], np.int64)
            logprobs = log_probabilities(logits, targets).tolist()
            scored += zip(logprobs, map(partial(_likeliest, n_top), logits), strict=True)
            yield
    decoder, n_characters = tokenizer.incremental_decoder(), 0
    entries = []
    for token, (logprob, top) in zip(tokens, scored, strict=True):
        entries.append(Entry(token, logprob, top, n_characters))
        n_characters += len(decoder.feed(token))
    return entries


def _likeliest(n: int, row: npt.NDArray[np.float32]) -> Top:
    """Return the ``n`` likeliest ids and their log-probabilities; of equal ones, the lower id first."""
    ids = largest(row, n)
    values = log_probabilities(np.broadcast_to(row, (len(ids), row.size)), ids)
    return tuple(zip(ids.tolist(), values.tolist(), strict=True))
