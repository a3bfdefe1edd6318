"""The versions of a model's weights besides the exact ones that updates move: rounded, and averaged.

With ``quantize``, the forward and backward pass see matrices rounded to int4, and the gradient moves the exact weights
(a straight-through estimator, Bengio et al. 2013). With ``average``, validation, samples and the saved model see an
exponential moving average of the weights. A version is put in place of the exact weights for a while. This module knows
nothing of updates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from gpt2lab.training.module import GPT2
from gpt2lab.training.ops.rounding import round_int4
from gpt2lab.training.settings import Settings
from gpt2lab.weights.integers import is_matrix, is_output_major

MARK = ":average"
"""The end of an average's name in a saved state."""


class Versions:
    """The weights of ``model`` that ``settings`` choose for each purpose: exact, rounded or averaged ones."""

    def __init__(self, model: GPT2, settings: Settings) -> None:
        self._parameters = dict(model.named_parameters())
        matrices = {name: p for name, p in self._parameters.items() if is_matrix(name)}
        self._rounded = {
            name: torch.empty_like(p.detach()) for name, p in matrices.items() if settings.quantize == "int4"
        }
        self._decay = settings.average
        self._average = {name: p.detach().clone() for name, p in self._parameters.items() if settings.average}

    def moved(self, step: int) -> None:
        """Add the weights after update ``step`` to the average, whose decay grows during the first updates."""
        decay = min(self._decay, step / (step + 10))
        for name, average in self._average.items():
            average.lerp_(self._parameters[name].detach(), 1 - decay)

    def change(self, action: Callable[[], None]) -> None:
        """Call ``action``, which changes the model's weights in place, on the exact weights and on the average."""
        action()
        if self._average:
            with self.averaged():
                action()

    @contextmanager
    def rounded(self) -> Iterator[None]:
        """Put the rounded weights in place, for a forward and backward pass."""
        for name, rounded in self._rounded.items():
            weight = self._parameters[name].detach()
            transposed = is_output_major(name)
            round_int4(weight.t() if transposed else weight, rounded.t() if transposed else rounded)
        with self._in_place(self._rounded):
            yield

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the average in place, to save it."""
        with self._in_place(self._average):
            yield

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Put the average in place, rounded: the model that a user will run."""
        with self.averaged(), self.rounded():
            yield

    @contextmanager
    def _in_place(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        exact = {name: self._parameters[name].data for name in tensors}
        try:
            for name, tensor in tensors.items():
                self._parameters[name].data = tensor
            yield
        finally:
            for name, tensor in exact.items():
                self._parameters[name].data = tensor

    def tensors(self) -> dict[str, Tensor]:
        """Return the average as a state holds it."""
        return {f"{name}{MARK}": average for name, average in self._average.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Load what :meth:`tensors` returned; the average begins with the current weights if it returned nothing."""
        for name, average in self._average.items():
            average.copy_(tensors.get(f"{name}{MARK}", self._parameters[name].detach()))
