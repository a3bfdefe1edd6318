"""Draws from logits by the readable rules of :mod:`gpt2lab.sampling.rules`.

The reference engine uses them, and so do draws with the user's own stages. This module knows nothing of how logits are
computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from gpt2lab.engines.protocol import Draw, Drawn
from gpt2lab.sampling import rules


def draw_rows(logits: npt.NDArray[np.float32], fed: Sequence[int], draw: Draw) -> Iterator[Drawn]:
    """Draw a token from each row of ``logits``, until one differs from the next token ``fed``.

    ``fed[i]`` is the token that row i is the logits after.
    """
    history = list(draw.history)
    for n, (row, next_fed) in enumerate(zip(logits, [*fed[1:], None], strict=True)):
        place = {"seed": draw.seed, "stream": draw.stream, "position": draw.position + n}
        token = rules.sample(row, draw.params, **place, history=history, custom=draw.stages)
        yield Drawn(token, rules.logprob(row, token), _likeliest(row, draw.top))
        if token != next_fed:
            return
        history.append(token)


def _likeliest(logits: npt.NDArray[np.float32], n: int) -> tuple[tuple[int, float], ...]:
    """Return the ``n`` likeliest ids and their log-probabilities; of equal ones, the lower id first."""
    return tuple((id, rules.logprob(logits, id)) for id in rules.largest(logits, n).tolist())
