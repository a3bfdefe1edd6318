"""Steering: a vector that is added to the residual stream at a layer, at every position, while a text is computed.

Turner et al. 2023 (activation addition) take the difference of two texts' activations; the rows of a sparse
autoencoder's decoder are directions as well. Layers are given as numbers or under TransformerLens' hook names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gpt2lab.engines.hooks import Edit, Site, checked_layer, hook_point
from gpt2lab.engines.sequences import new_sequence
from gpt2lab.errors import UsageError

if TYPE_CHECKING:
    from gpt2lab.config import ModelConfig
    from gpt2lab.engines.protocol import Engine

Additions = Mapping[int | str, npt.ArrayLike]
"""Layer, or hook name → the vector ``[n_embd]`` that is added there."""

DECODERS = ("W_dec", "decoder.weight")
"""Names of a sparse autoencoder's decoder: SAELens' ``[features, n_embd]``, a torch layer's ``[n_embd, features]``."""


def steering_edits(add: Additions, config: ModelConfig) -> list[Edit]:
    """Return the edits of ``add``. A vector of zeros gives none, so it changes no bit.

    Raises :class:`~gpt2lab.errors.UsageError` for an unknown place or a vector that does not fit.
    """
    if not isinstance(add, Mapping):
        raise UsageError(f"add must map layers to vectors, got {type(add).__name__}")
    edits = []
    for place, vector in add.items():
        site, layer = hook_point_of(place, config)
        values = _vector(place, vector, config.n_embd)
        if values.any():
            edits.append(Edit(site, layer, values[None], add=True, every=True))
    return edits


def hook_point_of(place: int | str, config: ModelConfig) -> tuple[Site, int]:
    """Return the site and layer of a place: a number stands for the residual stream before that layer."""
    if isinstance(place, str):
        return hook_point(place, config)
    if isinstance(place, bool) or not isinstance(place, int | np.integer):
        raise UsageError(f"a place is a layer's number or a hook's name, got {place!r}")
    return "resid_pre", checked_layer(int(place), config.n_layer)


def difference(
    engine: Engine, positive: Sequence[int], negative: Sequence[int], place: int | str
) -> npt.NDArray[np.float32]:
    """Return the activation ``[n_embd]`` at ``place`` at the last token of ``positive`` minus that of ``negative``."""
    site, layer = hook_point_of(place, engine.config)
    vector: npt.NDArray[np.float32] = _last(engine, positive, site, layer) - _last(engine, negative, site, layer)
    return vector


def _last(engine: Engine, ids: Sequence[int], site: Site, layer: int) -> npt.NDArray[np.float32]:
    with new_sequence(engine) as sequence:
        if len(ids) > 1:
            engine.forward([sequence], [ids[:-1]], "none")
        found: npt.NDArray[np.float32] = engine.record(sequence, ids[-1:], [site], layer)[site][0, 0].copy()
        return found


def decoder_rows(
    path: str | os.PathLike[str], features: Sequence[int], n_embd: int, name: str | None = None
) -> npt.NDArray[np.float32]:
    """Return rows ``[len(features), n_embd]`` of a sparse autoencoder's decoder from a safetensors file.

    ``name`` is the tensor's; default: the first of :data:`DECODERS` that the file has. Raises
    :class:`~gpt2lab.errors.UsageError` for a file without a fitting matrix, or a feature that it lacks.
    """
    from gpt2lab.weights.safetensors_file import read_safetensors

    tensors = read_safetensors(Path(path))
    found = next((each for each in ([name] if name else DECODERS) if each in tensors), None)
    if found is None:
        raise UsageError(f"{path} has no tensor {name or ' or '.join(DECODERS)}: name the decoder's with tensor=")
    matrix = tensors[found].stored(found)[0].read()
    rows = (
        matrix.T
        if matrix.shape[:1] == (n_embd,) and (found == DECODERS[1] or matrix.shape[1:] != (n_embd,))
        else matrix
    )
    if rows.ndim != 2 or rows.shape[1] != n_embd:
        raise UsageError(
            f"{path}: {found} is {list(matrix.shape)}, but a decoder for this model is [features, {n_embd}]"
        )
    if wrong := [each for each in features if not 0 <= each < len(rows)]:
        raise UsageError(f"{path}: there is no feature {wrong[0]}: features are 0 to {len(rows) - 1}")
    return np.array(rows[list(features)], np.float32)


def _vector(place: int | str, vector: npt.ArrayLike, n_embd: int) -> npt.NDArray[np.float32]:
    try:
        values = np.ascontiguousarray(vector, np.float32)
    except (TypeError, ValueError):
        raise UsageError(f"the vector for {place!r} must be {n_embd} numbers, got {type(vector).__name__}") from None
    if values.shape != (n_embd,):
        raise UsageError(f"the vector for {place!r} must be [{n_embd}], got {list(values.shape)}")
    if not np.isfinite(values).all():
        raise UsageError(f"the vector for {place!r} has numbers that are NaN or infinite")
    return values
