"""The activations behind a model's logits: the residual stream, attention, and each part's contribution.

Everything comes from the engine that computes the logits, in its precision. The logit lens (nostalgebraist 2020) sends
the residual stream before a layer through the final layer norm and the output matrix. It knows nothing of text.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gpt2lab.engines.hooks import SITES, Site, hook_point
from gpt2lab.engines.sequences import new_sequence
from gpt2lab.errors import UsageError
from gpt2lab.generation.options import whole
from gpt2lab.inside.attribution import Attribution, Contributions
from gpt2lab.weights.precisions import PRECISIONS
from gpt2lab.weights.quantization import decode

if TYPE_CHECKING:
    from gpt2lab.engines.protocol import Engine
    from gpt2lab.weights.checkpoint import Checkpoint

Array = npt.NDArray[np.float32]

MOST_TOKENS = 512
"""The longest text to trace: activations and attention grow with it."""


class Trace:
    """The activations of one text at its last ``n`` positions; ``n_seq`` is the length of the text.

    All arrays are float32. Layers are counted from 0. A ``position`` indexes the recorded positions, so -1 is the last
    token's.

    Attributes:
        ids: the text's token ids.
        first: the first recorded position: 0 if all were recorded.
        residual: the residual stream before each layer and at the end, ``[n_layer + 1, n, n_embd]``.
        residual_mid: the same between attention and MLP, ``[n_layer, n, n_embd]``.
        attn_out, mlp_out: what attention and MLP add to the stream, ``[n_layer, n, n_embd]``.
        z: the mixed values of each head, before the output projection, ``[n_layer, n, n_head, head_dim]``.
    """

    def __init__(
        self, engine: Engine, checkpoint: Checkpoint, ids: Sequence[int], activations: dict[Site, Array], keys: Array
    ) -> None:
        config = engine.config
        self._engine = engine
        self._attribution = Attribution(engine, checkpoint)
        self._activations = activations
        self._keys = keys  # [n_layer, n_head, n_seq, head_dim]
        self.ids = tuple(ids)
        self.residual = activations["resid_pre"]
        self.residual_mid = activations["resid_mid"]
        self.attn_out = activations["attn_out"]
        self.mlp_out = activations["mlp_out"]
        self.z = activations["z"].reshape(config.n_layer, -1, config.n_head, config.head_dim)
        self.first = len(self.ids) - self.residual.shape[1]

    def __repr__(self) -> str:
        n, config = self.residual.shape[1], self._engine.config
        which = "" if n == len(self.ids) else f" at the last {n:,} positions"
        return f"<Trace of {len(self.ids):,} tokens{which}: {config.n_layer} layers, {config.n_head} heads>"

    def __getitem__(self, name: str) -> Array:
        """Return an activation by TransformerLens' name, such as ``trace["blocks.3.hook_resid_pre"]``.

        It is ``[n, n_embd]``, or ``[n, n_head, head_dim]`` for ``hook_q`` and ``hook_z``.
        """
        site, layer = hook_point(name, self._engine.config)
        found: Array = self._activations[site][layer]
        return found.reshape(len(found), self._engine.config.n_head, -1) if site in ("q", "z") else found

    @cached_property
    def attention(self) -> Array:
        """The weight that each recorded position gives to each position, ``[n_layer, n_head, n, n_seq]``.

        Rows add up to 1. They are computed from the engine's queries and keys.
        """
        config = self._engine.config
        q = self._activations["q"].reshape(config.n_layer, -1, config.n_head, config.head_dim).swapaxes(1, 2)
        scales = np.array([config.attention_scale(layer) for layer in range(config.n_layer)], np.float32)
        scores = (q @ self._keys.swapaxes(2, 3)) * scales[:, None, None, None]
        visible = np.tri(scores.shape[2], len(self.ids), k=self.first, dtype=bool)
        scores[:, :, ~visible] = -np.inf
        np.exp(scores - scores.max(axis=-1, keepdims=True), out=scores)
        weights: Array = scores / scores.sum(axis=-1, keepdims=True)
        return weights

    def lens(self, position: int = -1) -> Array:
        """Return the logits ``[n_layer + 1, n_vocab]`` of the stream before each layer, and at the end.

        The last row is the engine's own logits, to the bit.
        """
        return self._engine.unembed(self.residual[:, self._checked(position)])

    def contributions(self, token: int, position: int = -1) -> Contributions:
        """Return the contribution of each part of the model to the logit of ``token`` after a position.

        See :class:`~gpt2lab.inside.attribution.Contributions` for the definition.
        """
        token = whole("token", token, least=0)
        if token >= self._engine.config.n_vocab:
            raise UsageError(f"token id {token} is not in the model's vocabulary of {self._engine.config.n_vocab}")
        at = self._checked(position)
        rows = {site: values[:, at] for site, values in self._activations.items()}
        return self._attribution.of(token, rows, self.ids[self.first + at % len(self.residual[0])])

    def _checked(self, position: int) -> int:
        n = self.residual.shape[1]
        position = whole("position", position, least=-n)
        if position >= n:
            raise UsageError(f"there is no position {position}: {n} were recorded")
        return position


def trace(engine: Engine, checkpoint: Checkpoint, ids: Sequence[int], last: int | None = None) -> Trace:
    """Run ``ids`` (at least one) and record the activations of the ``last`` positions (default: all).

    Raises :class:`~gpt2lab.errors.UsageError` for more than :data:`MOST_TOKENS` ids or ``last`` below 1.
    """
    if len(ids) > MOST_TOKENS:
        raise UsageError(
            f"the prompt has {len(ids)} tokens, more than the {MOST_TOKENS} that a trace holds: shorten it"
        )
    if last is not None and last < 1:
        raise UsageError(f"last must be at least 1, got {last}")
    with new_sequence(engine) as sequence:
        return trace_more(engine, checkpoint, sequence, 0, ids, last)


def trace_more(
    engine: Engine, checkpoint: Checkpoint, sequence: int, known: int, ids: Sequence[int], last: int | None = None
) -> Trace:
    """Do the same on a sequence that already holds the first ``known`` of ``ids``, none of them to be recorded."""
    first = 0 if last is None else max(0, len(ids) - last)
    if first > known:
        engine.forward([sequence], [ids[known:first]], "none")
    activations = engine.record(sequence, ids[first:], SITES)
    return Trace(engine, checkpoint, ids, activations, _keys(engine.read_sequence(sequence)))


def _keys(held: npt.NDArray[np.number]) -> Array:
    """Return the keys ``[n_layer, n_head, n_seq, head_dim]`` that attention sees, of what a sequence holds."""
    keys = held[:, 0]
    if keys.dtype == np.uint16:  # the bits of bfloat16
        return decode(keys.reshape(-1), PRECISIONS["bfloat16"], keys.shape)
    if keys.dtype != np.int8:
        return keys.astype(np.float32)
    scales = np.ascontiguousarray(keys[..., -4:]).view(np.float32)
    found: Array = keys[..., :-4].astype(np.float32) * scales
    return found
