"""Adam and AdamW in PyTorch's fused form.

``torch.optim.Optimizer`` imports PyTorch's compiler when the first one is made: 70 MB, and more than a second. So these
share its names, and call the same function.
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

    A group has ``params``, ``lr`` and ``weight_decay``, the latter two 0 if left out. ``state`` has for each parameter
    ``step``, ``exp_avg`` and ``exp_avg_sq``, from the beginning: made before the first gradients the moments do not lie
    between them in memory, and a lack of memory shows at once.
    """

    def __init__(
        self, groups: Sequence[dict[str, Any]], betas: tuple[float, float], *, decoupled: bool = False
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
        self.betas, self._function = betas, adamw if decoupled else adam

    @torch.no_grad()
    def step(self) -> None:
        """Move what has a gradient by it."""
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
                eps=EPS,
                maximize=False,
            )

    @torch.no_grad()
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or with ``set_to_none=False`` set them to zero."""
        for parameter in (parameter for group in self.param_groups for parameter in group["params"]):
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                parameter.grad.zero_()  # it may be a part of what replicas send
