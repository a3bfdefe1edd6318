"""Embeddings of texts: the hidden state after the final layer norm, of the last token or as the mean over all."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from gpt2lab.engines.sequences import new_sequence
from gpt2lab.errors import UsageError
from gpt2lab.reference import layer_norm

if TYPE_CHECKING:
    from gpt2lab.engines.protocol import Engine
    from gpt2lab.weights.checkpoint import Checkpoint

Pooling = Literal["mean", "last"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)

PART = 256
"""The most tokens that are read at a time."""

Array = npt.NDArray[np.float32]


def check_pooling(pooling: str) -> None:
    """Raise :class:`~gpt2lab.errors.UsageError` unless ``pooling`` is one of :data:`POOLINGS`."""
    if pooling not in POOLINGS:
        raise UsageError(f"pooling must be {' or '.join(map(repr, POOLINGS))}, got {pooling!r}")


def embed(engine: Engine, checkpoint: Checkpoint, ids: Sequence[int], pooling: Pooling) -> Array:
    """Return the embedding ``[n_embd]``, float32, of a text that fits the context."""
    parts = embed_in_parts(engine, checkpoint, ids, pooling)
    while True:
        try:
            next(parts)
        except StopIteration as end:
            embedding: Array = end.value
            return embedding


def embed_in_parts(
    engine: Engine, checkpoint: Checkpoint, ids: Sequence[int], pooling: Pooling
) -> Generator[None, None, Array]:
    """Do the same, and yield after each part of the text."""
    found = []
    with new_sequence(engine) as sequence:
        for start in range(0, len(ids), PART):
            part = ids[start : start + PART]
            rows = engine.record(sequence, part, ["resid_pre"], engine.config.n_layer)["resid_pre"][0]
            found.append(rows if pooling == "mean" else rows[-1:])
            yield
    rows = np.concatenate(found) if pooling == "mean" else found[-1]  # [n, n_embd]
    norm = {name: checkpoint.tensors[name] for name in ("ln_f.weight", "ln_f.bias")}
    hidden = layer_norm(norm, "ln_f", rows, engine.config.layer_norm_epsilon)
    mean: Array = hidden.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean
