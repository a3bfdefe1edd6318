"""Direct logit attribution: a token's logit as a sum over the parts of the model that write to the residual stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from gpt2lab.engines.hooks import Site
    from gpt2lab.engines.protocol import Engine
    from gpt2lab.weights.checkpoint import Checkpoint

Array = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class Contributions(NamedTuple):
    """The terms of one logit.

    The residual stream at its end is a sum: token embedding, position embedding, and what each attention and each MLP
    added. The final layer norm subtracts the mean, divides by the standard deviation ``s`` of that sum, multiplies by a
    gain ``g`` and adds a bias ``b``. With ``s`` held fixed, the logit is linear in the terms: a term ``x`` contributes
    ``((x - mean(x)) / s * g) @ w`` to the logit of the token whose row of the output matrix is ``w``, and the bias
    contributes ``b @ w``. So ``embedding + position + attention.sum() + mlp.sum() + norm_bias + rest`` is ``logit``.
    """

    token: int
    logit: float
    """The engine's logit."""
    embedding: float
    position: float
    attention: Array
    """``[n_layer]``, with the bias of the output projection."""
    mlp: Array
    """``[n_layer]``"""
    heads: Array
    """``[n_layer, n_head]``: what each head adds; the output projection's bias is in none of them."""
    norm_bias: float
    """The contribution of the final layer norm's bias."""
    rest: float
    """The rounding of the engine: below 0.001 in float32. In a steered or patched model also the effect of edits."""

    def __repr__(self) -> str:
        parts = {"embedding": self.embedding, "position": self.position}
        parts |= {f"attention of layer {layer}": float(term) for layer, term in enumerate(self.attention)}
        parts |= {f"MLP of layer {layer}": float(term) for layer, term in enumerate(self.mlp)}
        largest = sorted(parts, key=lambda name: -abs(parts[name]))[:3]
        terms = ", ".join(f"{name} {parts[name]:+.2f}" for name in largest)
        return f"<Contributions to the logit {self.logit:.2f} of token {self.token}: {terms}, …>"


class Attribution:
    """Attribution in one model."""

    def __init__(self, engine: Engine, checkpoint: Checkpoint) -> None:
        self._engine = engine
        self._checkpoint = checkpoint

    def of(self, token: int, rows: Mapping[Site, Array], last_id: int) -> Contributions:
        """Return the terms of the logit of ``token`` from the activations ``[layers, n_embd]`` of one position.

        ``last_id`` is the id at that position.
        """
        config = self._engine.config
        end = rows["resid_pre"][-1].astype(np.float64)
        output = self._engine.token_row(token, True).astype(np.float64)
        gain, bias = (self._checkpoint.tensors[f"ln_f.{name}"].astype(np.float64) for name in ("weight", "bias"))
        direction = output * gain
        direction = (direction - direction.mean()) / np.sqrt(end.var() + config.layer_norm_epsilon)

        embedding = self._engine.token_row(last_id, False) @ direction
        start = rows["resid_pre"][0] @ direction
        attention, mlp = rows["attn_out"] @ direction, rows["mlp_out"] @ direction
        norm_bias = bias @ output
        logit = float(self._engine.unembed(rows["resid_pre"][-1:])[0, token])
        explained = start + attention.sum() + mlp.sum() + norm_bias
        return Contributions(
            token=token,
            logit=logit,
            embedding=float(embedding),
            position=float(start - embedding),
            attention=attention.astype(np.float32),
            mlp=mlp.astype(np.float32),
            heads=self._heads(rows["z"], direction).astype(np.float32),
            norm_bias=float(norm_bias),
            rest=float(logit - explained),
        )

    def _heads(self, z: Array, direction: Doubles) -> Doubles:
        """Return what each head adds along ``direction``: ``[n_layer, n_head]`` from ``z [n_layer, n_embd]``."""
        size = float(np.abs(direction).max()) or 1.0  # keeps float32 far from its limits
        unit = (direction / size).astype(np.float32)
        back = np.stack([self._engine.pull_back(layer, unit) for layer in range(len(z))]).astype(np.float64)
        heads: Doubles = (z * back * size).reshape(len(z), self._engine.config.n_head, -1).sum(axis=-1)
        return heads
