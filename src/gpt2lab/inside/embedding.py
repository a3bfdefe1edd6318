"""Embeddings of texts: the hidden state after the final layer norm, of the last token or as the mean over all."""

from __future__ import annotations

from collections.abc import Sequence
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


def embed(engine: Engine, checkpoint: Checkpoint, ids: Sequence[int], pooling: Pooling) -> npt.NDArray[np.float32]:
    """Return the embedding ``[n_embd]``, float32, of a text that fits the context.

    Raises :class:`~gpt2lab.errors.UsageError` for another ``pooling``.
    """
    if pooling not in POOLINGS:
        raise UsageError(f"pooling must be {' or '.join(map(repr, POOLINGS))}, got {pooling!r}")
    with new_sequence(engine) as sequence:
        residual = engine.record(sequence, ids, ["resid_pre"], engine.config.n_layer)["resid_pre"][0]  # [n_seq, n_embd]
    rows = residual if pooling == "mean" else residual[-1:]
    norm = {name: checkpoint.tensors[name] for name in ("ln_f.weight", "ln_f.bias")}
    hidden = layer_norm(norm, "ln_f", rows, engine.config.layer_norm_epsilon)
    mean: npt.NDArray[np.float32] = hidden.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean
