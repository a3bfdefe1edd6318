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
    engine: Engine,
    sequences: Sequence[int],
    tokens: Sequence[Sequence[int]],
    draws: Sequence[Draw | None],
    given: Sequence[int],
) -> tuple[list[list[Drawn]], dict[int, StageError]]:
    """Run :meth:`gpt2lab.engines.protocol.Engine.step`, with custom stages.

    Returns the tokens drawn, and the errors of stages by place: the draws of that place end before the error.
    """
    custom = {i: draw for i, draw in enumerate(draws) if draw and draw.stages}
    drawn: list[list[Drawn]] = [[] for _ in sequences]
    errors: dict[int, StageError] = {}
    others = [i for i in range(len(sequences)) if i not in custom]
    if others:
        rows = engine.step(
            [sequences[i] for i in others],
            [tokens[i] for i in others],
            [draws[i] for i in others],
            [given[i] for i in others],
        )
        for i, row in zip(others, rows, strict=True):
            drawn[i] = row
    logits = _last_logits(
        engine, [sequences[i] for i in custom], [tokens[i] for i in custom], [given[i] for i in custom]
    )
    for (i, draw), found in zip(custom.items(), logits, strict=True):
        try:
            for each in draw_rows(found[-draw.count :], tokens[i][-draw.count :], draw):
                drawn[i].append(each)
        except StageError as error:
            errors[i] = error
        except SamplingError as error:  # a later built-in stage cannot use the result of a custom one
            errors[i] = StageError(str(error))
    return drawn, errors


def _last_logits(
    engine: Engine, sequences: Sequence[int], tokens: Sequence[Sequence[int]], given: Sequence[int]
) -> list[npt.NDArray[np.float32]]:
    """Feed ``tokens[i]``; return the logits after the last given token and after each drawn or guessed token."""
    rows: list[list[npt.NDArray[np.float32]]] = [[] for _ in sequences]
    prompts = [i for i, n in enumerate(given) if n]
    if prompts:
        fed = [tokens[i][: given[i]] for i in prompts]
        logits = engine.forward([sequences[i] for i in prompts], fed, "last", given=True)
        for i, row in zip(prompts, logits, strict=True):
            rows[i].append(row[None])
    others = [i for i, n in enumerate(given) if n < len(tokens[i])]
    if others:
        fed = [tokens[i][given[i] :] for i in others]
        logits = engine.forward([sequences[i] for i in others], fed, "all", given=False)
        ends = np.cumsum([len(ids) for ids in fed])[:-1]
        for i, part in zip(others, np.split(logits, ends), strict=True):
            rows[i].append(part)
    return [np.concatenate(parts) for parts in rows]
