"""Places inside a forward pass where activations are read and changed, under TransformerLens' names.

An :class:`Edit` sets or adds numbers at one place; :meth:`~gpt2lab.engines.protocol.Engine.edit_sequence` applies edits
to every token that is fed to a sequence afterwards. This module knows nothing of prompts or of the purpose of an edit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from gpt2lab.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from gpt2lab.config import ModelConfig

Site = Literal["resid_pre", "q", "z", "attn_out", "resid_mid", "mlp_out"]
"""A place in a layer. Each holds ``n_embd`` numbers for a token.

``resid_pre`` is the residual stream before the layer (before layer ``n_layer``: at the end), ``q`` the queries and
``z`` the mixed values of all heads side by side, ``attn_out`` and ``mlp_out`` what attention and MLP add to the stream,
``resid_mid`` the stream between the two.
"""

SITES: tuple[Site, ...] = get_args(Site)
_HOOK = re.compile(r"blocks\.(\d+)\.(?:hook_(resid_pre|resid_mid|resid_post|attn_out|mlp_out)|attn\.hook_(q|z))")


@dataclass(frozen=True, eq=False)
class Edit:
    """A change of ``values`` float32 ``[n_positions, width]`` at ``site`` of ``layer``.

    It covers the columns from ``column`` on and the positions from ``first`` on: as many as there are rows, or with
    ``every`` all of them, and then there is one row.
    """

    site: Site
    layer: int
    values: npt.NDArray[np.float32]
    add: bool = False
    column: int = 0
    first: int = 0
    every: bool = False

    def apply(self, x: npt.NDArray[np.float32], position: int) -> npt.NDArray[np.float32]:
        """Return a changed copy of ``x [n, n_embd]``, the site's numbers from ``position`` on."""
        begin = max(self.first - position, 0)
        end = len(x) if self.every else min(self.first + len(self.values) - position, len(x))
        if begin >= end:
            return x
        start = begin + position - self.first
        values = self.values if self.every else self.values[start : start + end - begin]
        changed: npt.NDArray[np.float32] = x.copy()
        target = changed[begin:end, self.column : self.column + self.values.shape[1]]
        target[:] = target + values if self.add else values
        return changed


def hook_point(name: str, config: ModelConfig) -> tuple[Site, int]:
    """Return the site and layer that TransformerLens calls ``name``, such as ``"blocks.6.hook_resid_pre"``.

    Raises :class:`~gpt2lab.errors.UsageError` for other names and for layers that the model lacks.
    """
    found = _HOOK.fullmatch(str(name))
    if not found:
        raise UsageError(
            f"there is no hook {name!r}: the names are blocks.N.hook_resid_pre, …hook_resid_mid, …hook_resid_post, "
            "…hook_attn_out, …hook_mlp_out, …attn.hook_q and …attn.hook_z"
        )
    layer = checked_layer(int(found[1]), config.n_layer)
    site = found[2] or found[3]
    if site == "resid_post":
        return "resid_pre", layer + 1
    return next(each for each in SITES if each == site), layer


def checked_layer(layer: int, n_layer: int) -> int:
    """Return ``layer``. Raises :class:`~gpt2lab.errors.UsageError` unless it is from 0 to ``n_layer - 1``."""
    if not 0 <= layer < n_layer:
        raise UsageError(f"there is no layer {layer}: layers are 0 to {n_layer - 1}")
    return layer


def apply_all(
    edits: Sequence[Edit], site: str, layer: int, x: npt.NDArray[np.float32], position: int
) -> npt.NDArray[np.float32]:
    """Return ``x [n, n_embd]``, the numbers of a site from ``position`` on, after the ``edits`` at that site."""
    for edit in edits:
        if (edit.site, edit.layer) == (site, layer):
            x = edit.apply(x, position)
    return x
