"""Adam and AdamW in PyTorch's fused form.

The first ``torch.optim.Optimizer`` of a process imports PyTorch's compiler, which takes 70 MB and more than a second.
These classes therefore only share its names and call the same functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.adamw import adamw

EPS = 1e-8


class Adam:
    """Adam (Kingma and Ba, 2015), or AdamW (Loshchilov and Hutter, 2019) if weight decay is ``decoupled``.

    ``hat`` adds epsilon where TensorFlow does, to the root of the mean square before the correction of its bias, the
    paper's "epsilon hat". PyTorch adds it after the correction, so there it is epsilon / sqrt(1 - beta2^step).

    A group has ``params``, ``lr`` and ``weight_decay``; the latter two default to 0. ``state`` holds ``step``,
    ``exp_avg`` and ``exp_avg_sq`` for each parameter. They are allocated here, before the first gradients, so that they
    do not end up between these in memory, and so that a lack of memory shows at once.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        betas: tuple[float, float],
        *,
        decoupled: bool = False,
        hat: bool = False,
    ) -> None:
        self.param_groups = [{"lr": 0.0, "weight_decay": 0.0, **group} for group in groups]
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {
            parameter: {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
            for group in self.param_groups
            for parameter in group["params"]
        }
        self.betas, self._function, self._hat = betas, adamw if decoupled else adam, hat

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            steps, first, second = (
                [self.state[parameter][name] for parameter in moved] for name in ("step", "exp_avg", "exp_avg_sq")
            )
            self._function(
                moved,
                [parameter.grad for parameter in moved],
                first,
                second,
                [],
                steps,
                fused=True,
                amsgrad=False,
                beta1=self.betas[0],
                beta2=self.betas[1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=self._epsilon(steps),
                maximize=False,
            )

    def _epsilon(self, steps: Sequence[Tensor]) -> float:
        """Return the epsilon for PyTorch of parameters that have made ``steps`` steps, all the same number."""
        if not self._hat or not steps:
            return EPS
        correction: float = (1 - self.betas[1] ** (steps[0].item() + 1)) ** 0.5
        return EPS / correction

    @torch.no_grad()
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients, or set them to zero with ``set_to_none=False``."""
        for parameter in (parameter for group in self.param_groups for parameter in group["params"]):
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                parameter.grad.zero_()  # in place: it may be a view of the buffer that replicas send
