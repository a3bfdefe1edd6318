"""How probable a prompt's own tokens are, for ``echo`` with ``logprobs``: in pieces, so that nobody waits for long.

In the precision that is served, and nothing before the first token, which therefore has no probability: so OpenAI's
API has it. ``gpt2lab score`` is in float32 and conditions the first token on ``<|endoftext|>``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpt2lab.scoring import CHUNK, log_probabilities
from gpt2lab.serving.samples import Entry, Top

if TYPE_CHECKING:
    import numpy.typing as npt

    from gpt2lab.engines.protocol import Engine
    from gpt2lab.serving.worker import Reading
    from gpt2lab.tokenizer import Tokenizer


def score_prompt(engine: Engine, tokenizer: Tokenizer, tokens: Sequence[int], n_top: int) -> Reading:
    """Entries of all ``tokens`` with the ``n_top`` likeliest ids in the place of each; yields after every piece."""
    if not tokens:
        return []
    scored: list[tuple[float | None, Top]] = [(None, ())]
    sequence = engine.new_sequence()
    try:
        for at in range(0, len(tokens) - 1, CHUNK):
            fed = tokens[at : min(at + CHUNK, len(tokens) - 1)]
            logits = engine.forward([sequence], [fed], "all")  # [fed, n_vocab]
            targets = np.array(tokens[at + 1 : at + 1 + len(fed)], np.int64)
            logprobs = log_probabilities(logits, targets).tolist()
            scored += zip(logprobs, _likeliest(logits, n_top), strict=True)
            yield
    finally:
        engine.free_sequence(sequence)
    decoder, n_characters = tokenizer.incremental_decoder(), 0
    entries = []
    for token, (logprob, top) in zip(tokens, scored, strict=True):
        entries.append(Entry(token, logprob, top, n_characters))
        n_characters += len(decoder.feed(token))
    return entries


def _likeliest(logits: npt.NDArray[np.float32], n: int) -> list[Top]:
    """The ``n`` likeliest ids of each row and their log-probabilities, the lower id first of equal ones."""
    if not n:
        return [()] * len(logits)
    tops = []
    for row in logits:
        least = np.partition(row, -n)[-n]
        candidates = np.flatnonzero(row >= least)  # in order of ids, and ties of the last among them
        ids = candidates[np.argsort(-row[candidates], kind="stable")][:n]
        values = log_probabilities(np.broadcast_to(row, (n, row.size)), ids)
        tops.append(tuple(zip(ids.tolist(), values.tolist(), strict=True)))
    return tops
