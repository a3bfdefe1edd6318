"""How to train: every number of a run but the model's shape, its defaults and its limits.

Imports no torch, so that the command line can show defaults without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from gpt2lab.errors import UsageError

AT_LEAST_ONE = ("steps", "batch_size", "accumulate_gradients")
NOT_NEGATIVE = (
    "warmup_steps",
    "decay_steps",
    "narrow_steps",
    "val_every",
    "save_every",
    "patience",
    "weight_decay",
    "seed",
)


@dataclass(frozen=True)
class Settings:
    """How to train. An update (a step) averages ``accumulate_gradients`` batches of ``batch_size`` windows.

    Raises :class:`UsageError` for a number out of range.
    """

    steps: int = 1000
    batch_size: int = 8
    accumulate_gradients: int = 1
    learning_rate: float = 1e-3  # its peak
    warmup_steps: int = 100
    schedule: Literal["cosine", "stable-decay"] = "cosine"
    decay_steps: int = 0  # length of the decay that ends "stable-decay"
    optimizer: Literal["adamw", "muon"] = "adamw"
    weight_decay: float = 0.1  # on matrices, not on biases and layer norms
    clip: float = 1.0  # largest norm of the gradient
    dropout: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"  # of the arithmetic; weights stay float32
    narrow_steps: int = 0  # so many first updates choose among the dataset's own tokens only: see Trainer.widen
    val_every: int = 250  # 0 = only after the last update
    save_every: int = 250  # 0 = only after the last update
    patience: int = 0  # stop after so many validations without a better one; 0 = never
    seed: int = 0

    def __post_init__(self) -> None:
        for names, least in ((AT_LEAST_ONE, 1), (NOT_NEGATIVE, 0)):
            for name in names:
                if not getattr(self, name) >= least:
                    raise UsageError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise UsageError(f"learning_rate must be above 0, got {self.learning_rate}")
        if not self.clip > 0:
            raise UsageError(f"clip must be above 0, got {self.clip}")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout must be from 0 to below 1, got {self.dropout}")


def learning_rate(step: int, settings: Settings) -> float:
    """The learning rate of update ``step`` (from 1).

    Linear warm-up to the peak, then a cosine that would reach 0 one update after the last, or a plateau and then a
    straight line to 0 over the last ``decay_steps``. On a plateau the number of steps may still change (Hu et al. 2024,
    MiniCPM): resume with another ``steps``.
    """
    warm, peak = settings.warmup_steps, settings.learning_rate
    if step <= warm:
        return peak * step / warm
    left = settings.steps + 1 - step
    if settings.schedule == "cosine":
        return peak * 0.5 * (1 - math.cos(math.pi * min(1.0, left / max(1, settings.steps - warm))))
    return peak * min(1.0, left / (settings.decay_steps + 1))
