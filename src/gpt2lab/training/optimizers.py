"""The choice of trained parameters, their optimizers, and the optimizers' state as named tensors.

AdamW, Adam or SGD for everything, or Muon for the matrices inside the layers and AdamW for the rest. This file knows
the names of the model's parameters, and nothing of schedules or files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from gpt2lab.training.adam import Adam
from gpt2lab.training.lora import add_lora, has_lora
from gpt2lab.training.module import GPT2
from gpt2lab.training.parallel import is_sharded
from gpt2lab.training.settings import Settings

BETAS = (0.9, 0.99)  # the second is a longer memory than the usual 0.95, because batches here are small
ADAM_BETAS = (0.9, 0.999)  # the original's
AnyOptimizer: TypeAlias = Adam | torch.optim.Optimizer


def choose_trainable(model: GPT2, settings: Settings) -> None:
    """Set ``requires_grad`` of all parameters; with LoRA, add the adapters unless they exist.

    ``only_train_transformer_layers`` leaves out the embeddings and the final norm, as the original did.
    """
    if settings.lora:
        if not has_lora(model):
            alpha = settings.lora_alpha or 2.0 * settings.lora
            add_lora(model, settings.lora, alpha, settings.targets(), settings.dropout, seed=settings.seed)
        return
    model.requires_grad_(not settings.only_train_transformer_layers)
    model.h.requires_grad_(True)


def make_optimizers(model: GPT2, settings: Settings) -> list[AnyOptimizer]:
    """Return the optimizers of ``settings`` for the trained parameters; the caller sets the learning rates.

    Muon (Jordan et al. 2024) makes each matrix's update orthogonal. The updates are scaled to the size of AdamW's (Liu
    et al. 2025), so one learning rate and one weight decay serve both. Weight decay applies to matrices, not to biases
    and layer norms.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    hat = settings.adam_epsilon == "hat"
    if settings.optimizer == "sgd":
        sharded = any(map(is_sharded, trained))  # the fused form does not support sharded tensors
        return [torch.optim.SGD(trained, lr=0.0, fused=not sharded)]
    if settings.optimizer == "adam":
        return [Adam([{"params": trained}], ADAM_BETAS, hat=hat)]
    hidden: list[nn.Parameter] = []
    if settings.optimizer == "muon":
        hidden = [parameter for parameter in model.h.parameters() if parameter.requires_grad and parameter.dim() == 2]
    own = {id(parameter) for parameter in hidden}
    rest = [parameter for parameter in trained if id(parameter) not in own]
    groups = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizers: list[AnyOptimizer] = []
    if rest:
        used = [group for group in groups if group["params"]]
        optimizers.append(Adam(used, BETAS, decoupled=True, hat=hat))
    if hidden:
        decay = settings.weight_decay
        optimizers.append(torch.optim.Muon(hidden, lr=0.0, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    return optimizers


def optimizer_tensors(model: GPT2, optimizers: Sequence[AnyOptimizer]) -> dict[str, Tensor]:
    """Return the state of ``optimizers``, uncopied, by ``<parameter's name>:<what>``, as in ``wte.weight:exp_avg``."""
    names = _names(model, optimizers)
    return {
        f"{names[parameter]}:{what}": value if isinstance(value, Tensor) else torch.as_tensor(value)
        for optimizer in optimizers
        for parameter, state in optimizer.state.items()
        for what, value in state.items()
        if value is not None
    }


def load_optimizer_tensors(model: GPT2, optimizers: Sequence[AnyOptimizer], tensors: Mapping[str, Tensor]) -> None:
    """Load what :func:`optimizer_tensors` returned; an empty mapping means the state before the first step.

    Raises ValueError if ``tensors`` belong to other parameters or to another kind of optimizer.
    """
    kept: dict[str, set[str]] = {}
    for key in tensors:
        name, _, what = key.rpartition(":")
        kept.setdefault(name, set()).add(what)
    names = _names(model, optimizers)
    if kept and kept.keys() != (needed := _stateful(names, optimizers)):
        odd = min(kept.keys() ^ needed)
        raise ValueError(f"the optimizer's state belongs to other parameters: {odd}")
    for optimizer in optimizers:
        if not kept:
            with torch.no_grad():
                for state in optimizer.state.values():
                    for tensor in state.values():
                        tensor.zero_()
            continue
        expected = _KINDS[type(optimizer).__name__]
        for parameter in _parameters(optimizer):
            name = names[parameter]
            if expected and kept[name] != expected:
                raise ValueError(
                    f"{type(optimizer).__name__} keeps {', '.join(sorted(expected))}; "
                    f"the state of {name} has: {', '.join(sorted(kept[name]))}"
                )
            for what in sorted(expected):
                _restore(optimizer.state[parameter], what, tensors[f"{name}:{what}"], name, parameter)


@torch.no_grad()
def _restore(state: dict[str, Any], what: str, tensor: Tensor, name: str, parameter: Tensor) -> None:
    """Copy ``tensor``, which may be a file's own memory, to the parameter's device."""
    if tensor.dim() and tensor.shape != parameter.shape:
        raise ValueError(f"{name}:{what} has shape {list(tensor.shape)}, not {list(parameter.shape)}")
    there = state.get(what)
    if there is None:
        state[what] = tensor.detach().clone().to(parameter.device)
    else:
        there.copy_(tensor)


_KINDS: dict[str, set[str]] = {"Adam": {"step", "exp_avg", "exp_avg_sq"}, "Muon": {"momentum_buffer"}, "SGD": set()}


def _parameters(optimizer: AnyOptimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _names(model: GPT2, optimizers: Sequence[AnyOptimizer]) -> dict[Tensor, str]:
    """Return the names of all parameters of ``optimizers``."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {parameter: names[parameter] for optimizer in optimizers for parameter in _parameters(optimizer)}


def _stateful(names: Mapping[Tensor, str], optimizers: Sequence[AnyOptimizer]) -> set[str]:
    return {names[p] for optimizer in optimizers if _KINDS[type(optimizer).__name__] for p in _parameters(optimizer)}
