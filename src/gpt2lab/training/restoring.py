"""Restoring a trainer from a saved state: weights, the optimizer's state and the counters.

Refuses a state from another model, optimizer or kind of training. This module knows nothing of where states are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from gpt2lab.config import ModelConfig
from gpt2lab.errors import CheckpointError
from gpt2lab.training.checkpoints import State
from gpt2lab.training.loop import COUNTERS, Trainer
from gpt2lab.training.lora import adapter_tensors
from gpt2lab.training.optimizers import load_optimizer_tensors
from gpt2lab.training.versions import MARK


def restore(trainer: Trainer, state: State) -> None:
    """Set ``trainer`` to continue from ``state``.

    The settings may differ from those of the saved run; the model's shape may not. Raises
    :class:`CheckpointError` if the state does not fit.
    """
    kind = "adapter" if trainer.settings.lora else "model"
    if state.kind != kind:
        made = "with" if state.kind == "adapter" else "without"
        raise CheckpointError(
            f"{state.path} was trained {made} --lora: do the same, or give --restore_from fresh to start again"
        )
    try:
        _load_weights(trainer, state.weights)
        tensors = trainer.world.local_tensors(trainer.model, state.optimizer)
        averages = {name: tensor for name, tensor in tensors.items() if name.endswith(MARK)}
        moments = {name: tensor for name, tensor in tensors.items() if not name.endswith(MARK)}
        load_optimizer_tensors(trainer.model, trainer.optimizers, moments)
        trainer.versions.load(averages)
        _check_made_alike(trainer, state.progress)
        _check_counters(state.progress)
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{state.path} does not fit this model or optimizer ({_first_line(error)}): "
            "use the same settings as before, another --run_name, or --restore_from fresh to start again"
        ) from error
    for name in COUNTERS:
        value = state.progress.get(name, 0) if name == "unlearned" else state.progress[name]  # older states lack it
        setattr(trainer, name, tuple(value) if isinstance(value, list) else value)
    trainer.best = math.inf if trainer.best is None else trainer.best
    trainer.generation, trainer.last_state = state.progress["generation"], state.path
    if state.progress.get("held_out", trainer.text) != trainer.text:
        trainer.reporter.say("the held-out text has changed: the choice of the best model starts again")
        trainer.forget_best()
    if state.progress.get("settings", {}).get("quantize", "none") != trainer.settings.quantize:
        trainer.reporter.say("the rounding of the weights has changed: the choice of the best model starts again")
        trainer.forget_best()  # a loss with rounded weights is higher


def _load_weights(trainer: Trainer, weights: Mapping[str, Tensor]) -> None:
    own = adapter_tensors(trainer.model) if trainer.settings.lora else dict(trainer.model.named_parameters())
    if trainer.world.is_main and own.keys() != weights.keys():
        raise ValueError(f"{min(own.keys() ^ weights.keys())} is in only one of the two")
    for name, part in trainer.world.local_tensors(trainer.model, weights).items():
        if own[name].shape != part.shape:
            raise ValueError(f"{name} has shape {list(part.shape)} in the state, {list(own[name].shape)} in the model")
        own[name].data.copy_(part)


def _check_made_alike(trainer: Trainer, progress: Mapping[str, Any]) -> None:
    """Raise ValueError for differences that tensor shapes do not show. States of older versions record less."""
    config, settings = trainer.model.config, trainer.settings
    recorded = progress.get("config") or config.to_hparams()
    there = {**asdict(ModelConfig.from_hparams(recorded)), "optimizer": settings.optimizer}
    if "optimizer" in (made_with := progress.get("settings", {})):
        there["optimizer"] = made_with["optimizer"]
    here = {**asdict(config), "optimizer": settings.optimizer}
    for name, value in there.items():
        if value != here[name]:
            raise ValueError(f"{name} is {value} in the state, {here[name]} now")


def _check_counters(progress: Mapping[str, Any]) -> None:
    """Raise KeyError or ValueError for a counter that is missing or no number."""
    for name in COUNTERS:
        value = progress.get(name, 0) if name == "unlearned" else progress[name]
        numbers = value if isinstance(value, list) else [0 if value is None else value]
        if not all(isinstance(number, int | float) for number in numbers):
            raise ValueError(f"{name} is {value!r}")


def _first_line(error: Exception) -> str:
    return str(error.args[0] if error.args else error).partition("\n")[0]
