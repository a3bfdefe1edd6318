"""The tokens whose embeddings are nearest to a vector, by the cosine of the angle between them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from gpt2lab.engines.protocol import Engine

_lengths: WeakKeyDictionary[object, npt.NDArray[np.float32]] = WeakKeyDictionary()


class Neighbour(NamedTuple):
    """A token and the cosine of the angle between its embedding and the vector."""

    token: int
    cosine: float


def nearest(
    engine: Engine, vector: npt.NDArray[np.float32], top: int, without: Iterable[int] = (), known: int | None = None
) -> list[Neighbour]:
    """Return the ``top`` tokens nearest to ``vector [n_embd]``, nearest first.

    ``without`` are left out, and so are ids from ``known`` on, which stand for no text.
    """
    if engine not in _lengths:
        _lengths[engine] = engine.embedding_lengths()
    lengths = _lengths[engine] * np.float32(np.linalg.norm(vector))
    products = engine.compare(vector[None])[0]
    cosines = np.divide(products, lengths, out=np.full_like(products, -1), where=lengths > 0)
    cosines[known:] = -np.inf
    cosines[list(without)] = -np.inf
    order = np.argsort(-cosines, kind="stable")[:top]
    return [Neighbour(int(id), float(cosines[id])) for id in order if cosines[id] > -np.inf]
