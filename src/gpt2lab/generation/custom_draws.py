"""An engine step in which some draws go through the user's own stages.

The engine computes the logits exactly as in every step, bit for bit; sampling runs in Python. An error in a stage
affects only its own sample. This module knows nothing of samples beyond one step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpt2lab.engines.python_draws import draw_rows
from gpt2lab.errors import SamplingError, StageError

if TYPE_CHECKING:
    import numpy.typing as npt

    from gpt2lab.engines.protocol import Draw, Drawn, Engine


def step(
    engine: Engine, sequences: Sequence[int], tokens: Sequence[Sequence[int]], draws: Sequence[Draw | None]
) -> tuple[list[list[Drawn]], dict[int, StageError]]:
    """Run :meth:`gpt2lab.engines.protocol.Engine.step`, with custom stages.

    Returns the tokens drawn, and the errors of stages by place: the draws of that place end before the error.
    """
    custom = {i: draw for i, draw in enumerate(draws) if draw and draw.stages}
    drawn: list[list[Drawn]] = [[] for _ in sequences]
    errors: dict[int, StageError] = {}
    others = [i for i in range(len(sequences)) if i not in custom]
    if others:
        rows = engine.step([sequences[i] for i in others], [tokens[i] for i in others], [draws[i] for i in others])
        for i, row in zip(others, rows, strict=True):
            drawn[i] = row
    counts = [draw.count for draw in custom.values()]
    logits = _last_logits(engine, [sequences[i] for i in custom], [tokens[i] for i in custom], counts)
    for (i, draw), found in zip(custom.items(), logits, strict=True):
        try:
            for each in draw_rows(found, tokens[i][-draw.count :], draw):
                drawn[i].append(each)
        except StageError as error:
            errors[i] = error
        except SamplingError as error:  # a later built-in stage cannot use the result of a custom one
            errors[i] = StageError(str(error))
    return drawn, errors


def _last_logits(
    engine: Engine, sequences: Sequence[int], tokens: Sequence[Sequence[int]], counts: Sequence[int]
) -> list[npt.NDArray[np.float32]]:
    """Feed ``tokens[i]``; return the logits ``[counts[i], n_vocab]`` after the last ``counts[i]`` of them.

    The tokens before these are fed in a call of their own, because the logits of a whole chunk would take much memory.
    """
    before = {sequences[i]: tokens[i][:-n] for i, n in enumerate(counts) if len(tokens[i]) > n}
    if before:
        engine.forward([*before], [*before.values()], "none")
    logits = engine.forward(sequences, [ids[-n:] for ids, n in zip(tokens, counts, strict=True)], "all")
    return np.split(logits, np.cumsum(counts)[:-1])
