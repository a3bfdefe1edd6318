"""The choice of the next token from the logits: parameters, stages, the draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpt2lab.sampling.declaration import SamplingParams

if TYPE_CHECKING:
    from gpt2lab.sampling.rules import stages, uniform

__all__ = ["SamplingParams", "stages", "uniform"]


def __getattr__(name: str) -> Any:
    """Import the rules when they are first used: the native engine has its own, so most starts need none."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from gpt2lab.sampling import rules

    return getattr(rules, name)
