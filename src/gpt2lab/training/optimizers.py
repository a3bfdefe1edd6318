"""What turns gradients into updates, and its state as named tensors.

AdamW for everything, or Muon for the matrices inside the layers and AdamW for the rest. Knows the module's names, and
nothing of schedules or files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from gpt2lab.training.module import GPT2
from gpt2lab.training.settings import Settings

BETAS = (0.9, 0.99)  # the second a longer memory than the usual 0.95, because batches here are small


def make_optimizers(model: GPT2, settings: Settings) -> list[Optimizer]:
    """The optimisers of ``settings``; learning rates are set before each step by who steps them.

    Muon (Jordan et al. 2024) makes each matrix's update orthogonal; scaled to the size of AdamW's (Liu et al. 2025), so
    that one learning rate and one weight decay serve both.
    """
    hidden = [parameter for parameter in model.h.parameters() if parameter.dim() == 2]
    tables = [model.wte.weight, model.wpe.weight]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    muon = settings.optimizer == "muon"
    groups = [
        {"params": tables if muon else tables + hidden, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizers = [AdamW(groups, lr=0.0, betas=BETAS, fused=True)]
    if muon:
        decay = settings.weight_decay
        optimizers.append(torch.optim.Muon(hidden, lr=0.0, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    return optimizers


def optimizer_tensors(optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """All state of ``optimizers`` as named tensors: ``<optimizer>.<parameter>.<what>``."""
    return {
        f"{number}.{parameter}.{what}": torch.as_tensor(value)
        for number, optimizer in enumerate(optimizers)
        for parameter, state in optimizer.state_dict()["state"].items()
        for what, value in state.items()
    }


def load_optimizer_tensors(optimizers: Sequence[Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """The inverse of :func:`optimizer_tensors`. Raises ValueError if ``tensors`` are of other optimisers."""
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for name, tensor in tensors.items():
        number, parameter, what = name.split(".")
        if int(number) >= len(optimizers):
            raise ValueError(f"{len(optimizers)} optimizers, but {name} is saved")
        states[int(number)].setdefault(int(parameter), {})[what] = tensor
    for optimizer, state in zip(optimizers, states, strict=True):
        expected = sum(len(group["params"]) for group in optimizer.param_groups)
        if len(state) not in (0, expected):
            raise ValueError(f"{type(optimizer).__name__} has {expected} parameters, {len(state)} are saved")
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
