"""Steering in a request: a direction between two texts, checked, and computed between the steps of samples.

This module knows nothing of what the request asks for besides.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from gpt2lab.errors import Gpt2LabError
from gpt2lab.inside.steering import difference, hook_point_of, steering_edits
from gpt2lab.inside.tracing import MOST_TOKENS
from gpt2lab.serving.errors import ApiError

if TYPE_CHECKING:
    from gpt2lab.engines.hooks import Edit
    from gpt2lab.engines.protocol import Engine
    from gpt2lab.serving.models import ServedModel
    from gpt2lab.serving.protocol import Steer


def check_steer(steer: Steer, served: ServedModel) -> None:
    """Raise :class:`ApiError` for a layer or a text that does not fit the model."""
    check_read("steer.positive", steer.positive, served)
    check_read("steer.negative", steer.negative, served)
    if not (steer.positive and steer.negative):
        raise ApiError(400, "steer: positive and negative must not be empty", param="steer")
    try:
        hook_point_of(steer.layer, served.model.config)
    except Gpt2LabError as error:
        raise ApiError(400, f"steer: {error}", param="steer") from None


def n_steer_tokens(steer: Steer | None) -> int:
    """Return the number of tokens that are read to find the direction."""
    return len(steer.positive) + len(steer.negative) if steer else 0


def steer_edits(engine: Engine, steer: Steer) -> Generator[None, None, list[Edit]]:
    """Return the edits that ``steer`` stands for; none for a direction of zeros. Yields after reading the texts."""
    vector = difference(engine, steer.positive, steer.negative, steer.layer) * steer.scale
    yield
    return steering_edits({steer.layer: vector}, engine.config)


def check_read(name: str, ids: Sequence[int], served: ServedModel) -> None:
    """Raise :class:`ApiError` for ids that the model cannot look into: too many, or unknown ones."""
    most = min(MOST_TOKENS, served.model.config.n_ctx)
    if len(ids) > most:
        message = f"This model's maximum context length is {most} tokens here: {name} has {len(ids)}"
        raise ApiError(400, message, param=name.partition(".")[0], code="context_length_exceeded")
    n_vocab = served.model.config.n_vocab
    if unknown := [id for id in ids if id >= n_vocab]:
        message = f"{name}: there is no token {unknown[0]}; ids go up to {n_vocab - 1}"
        raise ApiError(400, message, param=name.partition(".")[0])
