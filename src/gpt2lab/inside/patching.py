"""Activation patching: heads and MLPs are switched off, or their activations replaced by those on another text.

A head's activation is its ``z``, the values it mixed, before the output projection; an MLP's is its output. Copied
numbers come from the same engine, so a copy from the same text changes nothing, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from gpt2lab.engines.hooks import Edit, Site, checked_layer
from gpt2lab.engines.sequences import new_sequence
from gpt2lab.errors import ContextError, UsageError

if TYPE_CHECKING:
    import numpy.typing as npt

    from gpt2lab.config import ModelConfig
    from gpt2lab.engines.protocol import Engine

Method = Literal["zero", "mean", "copy"]


@dataclass(frozen=True)
class Patch:
    """The activations to replace, and their replacements.

    Attributes:
        heads: pairs of a layer and a head, from 0.
        mlps: layers, from 0.
        method: ``"zero"``; ``"mean"`` of the activation over the positions of ``source``; or ``"copy"``, position by
            position, of ``source``.
        source: ids of the other text; needed for all but ``"zero"``.
        positions: the positions to change. Default: all, also those of tokens that are drawn; for ``"copy"`` those of
            the source.
    """

    heads: tuple[tuple[int, int], ...]
    mlps: tuple[int, ...]
    method: Method = "zero"
    source: tuple[int, ...] = ()
    positions: tuple[int, ...] | None = None


def check_patch(patch: Patch, config: ModelConfig) -> None:
    """Raise :class:`~gpt2lab.errors.UsageError` for a patch that does not fit the model."""
    if not patch.heads and not patch.mlps:
        raise UsageError("nothing to patch: give heads=[(layer, head)] or mlps=[layer]")
    if patch.positions is not None and not patch.positions:
        raise UsageError("nothing to patch: positions is empty; leave it out for all positions")
    if patch.method not in ("zero", "mean", "copy"):
        raise UsageError(f"method must be 'zero', 'mean' or 'copy', got {patch.method!r}")
    for layer in (*patch.mlps, *(layer for layer, _ in patch.heads)):
        checked_layer(layer, config.n_layer)
    for _, head in patch.heads:
        if not 0 <= head < config.n_head:
            raise UsageError(f"there is no head {head}: each layer has heads 0 to {config.n_head - 1}")
    if bool(patch.source) == (patch.method == "zero"):
        raise UsageError("method 'mean' or 'copy' needs source, another text; 'zero' takes none")
    if len(patch.source) > config.n_ctx:
        raise ContextError(f"source has {len(patch.source)} tokens, more than the model's context of {config.n_ctx}")
    limit = len(patch.source) if patch.method == "copy" else config.n_ctx
    if wrong := [each for each in patch.positions or () if not 0 <= each < limit]:
        raise UsageError(f"there is no position {wrong[0]} to patch: positions are 0 to {limit - 1}")


def patch_edits(engine: Engine, patch: Patch) -> list[Edit]:
    """Return the edits for ``engine``, in which ``source`` is run first."""
    config, found = engine.config, _activations(engine, patch)
    targets: list[tuple[Site, int, int, int]] = [("mlp_out", layer, 0, config.n_embd) for layer in patch.mlps]
    targets += [("z", layer, head * config.head_dim, config.head_dim) for layer, head in patch.heads]
    targets = list(dict.fromkeys(targets))  # one that is named twice would be held twice
    edits = []
    for site, layer, column, width in targets:
        values = found[site][layer][:, column : column + width] if found else np.zeros((1, width), np.float32)
        if patch.method == "mean":
            values = values.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
        edits += _edits(site, layer, np.ascontiguousarray(values), column, patch)
    return edits


def _edits(site: Site, layer: int, values: npt.NDArray[np.float32], column: int, patch: Patch) -> list[Edit]:
    copied = patch.method == "copy"
    if patch.positions is None:
        return [Edit(site, layer, values, column=column, every=not copied)]
    return [
        Edit(site, layer, values[at:end] if copied else values.repeat(end - at, axis=0), column=column, first=at)
        for at, end in _runs(patch.positions)
    ]


def _runs(positions: Sequence[int]) -> list[tuple[int, int]]:
    """Return the runs of consecutive positions, each as its first and the one after its last."""
    places = sorted(set(positions))
    firsts = [at for at, before in zip(places, [-2, *places], strict=False) if at != before + 1]
    lasts = [at for at, after in zip(places, [*places[1:], -2], strict=True) if after != at + 1]
    return [(first, last + 1) for first, last in zip(firsts, lasts, strict=True)]


def _activations(engine: Engine, patch: Patch) -> dict[Site, npt.NDArray[np.float32]]:
    if not patch.source:
        return {}
    sites: Sequence[Site] = [*(["z"] if patch.heads else []), *(["mlp_out"] if patch.mlps else [])]  # type: ignore[list-item]
    with new_sequence(engine) as sequence:
        return engine.record(sequence, patch.source, sites)
