"""Recomputing a part of a model in the backward pass instead of keeping its intermediate results (Chen et al., 2016).

:func:`torch.utils.checkpoint.checkpoint` does the same, but imports PyTorch's compiler: 70 MB just where memory is
short.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


def recomputed(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return ``function(x)``, differentiable in ``x`` and in parameters, keeping only ``x`` for the backward pass.

    ``function`` runs a second time when a gradient goes through it, from the same random state, and must repeat what it
    did before. Raises RuntimeError if it does not, and for a second backward pass through the result.
    """
    random = _random_states(x)
    version = x._version  # counts changes in place
    made: list[Tensor | None] = []
    count = 0

    def forget(_: Tensor) -> int:
        nonlocal count
        count += 1
        return count - 1

    def make_again(index: int) -> Tensor:
        if not made:
            if x._version != version:
                raise RuntimeError("the input to recompute from was changed in place after the forward pass")
            now = _random_states(x)
            _set_random_states(x, random)
            try:
                again: list[Tensor] = []
                with torch.enable_grad(), saved_tensors_hooks(lambda tensor: again.append(tensor.detach()), _none):
                    function(x.detach().requires_grad_(x.requires_grad))
            finally:
                _set_random_states(x, now)
            if len(again) != count:
                raise RuntimeError(f"recomputing saved {len(again)} tensors, the forward pass {count}")
            made.extend(again)
        tensor, made[index] = made[index], None
        if tensor is None:
            raise RuntimeError("a second backward pass needs tensors that the first one released")
        return tensor

    with saved_tensors_hooks(forget, make_again):
        return function(x)


def _none(_: object) -> Tensor:
    raise RuntimeError("recomputed tensors have no gradient of their own")


def _random_states(x: Tensor) -> tuple[Tensor, ...]:
    """Return the states of the generators that dropout on ``x`` may use."""
    others = (getattr(torch, x.device.type).get_rng_state(),) if x.device.type != "cpu" else ()
    return torch.get_rng_state(), *others


def _set_random_states(x: Tensor, states: tuple[Tensor, ...]) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        getattr(torch, x.device.type).set_rng_state(state)
