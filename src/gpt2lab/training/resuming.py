"""Resuming a run: which saved state to continue from, what has changed since, and what is left to do.

This module knows nothing of text, nor of what an update does.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from gpt2lab.data.pieces import Say
from gpt2lab.data.windows import Windows
from gpt2lab.errors import CheckpointError, UsageError
from gpt2lab.training import checkpoints
from gpt2lab.training.checkpoints import State
from gpt2lab.training.distributed import World
from gpt2lab.training.job import Job
from gpt2lab.training.loop import Trainer
from gpt2lab.training.module import GPT2
from gpt2lab.training.restoring import restore
from gpt2lab.training.run_folder import is_of, original_run
from gpt2lab.training.settings import Done, Settings
from gpt2lab.training.setup import Setup, Source, open_source
from gpt2lab.version import CONTRACT


def torchrun_job() -> str | None:
    """Return an id shared by all processes of one torchrun call, also restarted ones; None without torchrun."""
    run_id = os.environ.get("TORCHELASTIC_RUN_ID")
    return f"none/{os.getppid()}" if run_id == "none" else run_id  # the parent is torchrun's agent


def begin(job: Job, settings: Settings, world: World, say: Say) -> tuple[Setup, State | None]:
    """Return the setup with the model that a run begins with, and the state to resume from if there is one.

    ``say`` receives the lines for the user.
    """
    job = _after_restart(job, world)
    _check_restore_from(job)
    path = job.restore_from
    if path not in ("latest", "fresh") and not _has_states(Path(path)):
        other = replace(job, model_name=path, config=None)  # weights of any kind, as in the original
        return Setup(job, settings, open_source(other), world, say), None
    state = _find_state(job, say) if world.is_main else None
    found = world.broadcast(None if state is None else (state.path, state.kind, state.progress))
    if found is not None and state is None:
        state = State(found[0], found[1], {}, {}, found[2])  # the main process has the tensors
    original = world.broadcast(original_run(job.run) if world.is_main and path == "latest" else None)
    if original is None:
        return Setup(job, settings, open_source(job), world, say), state
    setup = Setup(job, settings, _source_of_original(job, *original), world, say)
    if state is None:
        setup.say(
            f"Continuing the original's run after update {original[1]}: the weights come from {original[0]}, the "
            "optimizer starts afresh"
        )
    return setup, state


def _source_of_original(job: Job, prefix: Path, updates: int) -> Source:
    """Open the checkpoint of a run of the original code as the model that training begins with."""
    if job.config is not None:
        raise UsageError(
            f"{prefix} is from a run of the original code, which --from_scratch does not continue: give another "
            "--run_name, or --restore_from fresh, which renames the old run"
        )
    return replace(open_source(replace(job, model_name=str(prefix))), updates=updates)


def _after_restart(job: Job, world: World) -> Job:
    """Return ``job``, changed to resume from its own last state if torchrun restarted its processes.

    Without this, ``--restore_from fresh`` or another place would start over each time a process dies.
    """
    saved = world.is_main and job.restore_from != "latest" and _has_saved(job)
    if not world.broadcast(saved):
        return job
    if job.restore_from == "fresh" or _has_states(Path(job.restore_from)):
        return replace(job, restore_from="latest")
    return replace(job, restore_from="latest", model_name=job.restore_from, config=None)


def _has_saved(job: Job) -> bool:
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        return False
    state = checkpoints.load_latest(job.run, lambda _: None)
    return state is not None and state.progress.get("torchrun") == torchrun_job()


def _check_restore_from(job: Job) -> None:
    """Raise :class:`UsageError` for a misspelt keyword, and for a path together with ``--from_scratch``."""
    path = job.restore_from
    close = get_close_matches(path, ["fresh", "latest"], 1, 0.7)
    if close and path != close[0] and not Path(path).exists():
        raise UsageError(f"--restore_from {path}: there is no such folder; did you mean {close[0]}?")
    if job.config and path not in ("latest", "fresh") and not _has_states(Path(path)):
        raise UsageError(
            f"--from_scratch starts from random weights, --restore_from {path} from saved ones: give only one"
        )


def _find_state(job: Job, say: Say) -> State | None:
    """Return the state that ``job`` asks to resume from. Only the main process calls this."""
    if job.restore_from == "fresh":
        return None
    if job.restore_from == "latest":
        return checkpoints.load_latest(job.run, say)
    path = Path(job.restore_from)
    return checkpoints.load_state(path) if checkpoints.is_state(path) else checkpoints.load_latest(path, say)


def _has_states(path: Path) -> bool:
    return checkpoints.is_state(path) or bool(checkpoints.states(path))


def done_before(source: Source, state: State | None, windows: Windows) -> Done:
    """Return the progress of ``state``, counted in ``windows``, whose length may differ from when it was saved.

    Without a state, it is that of the original's run that ``source`` continues, if any.
    """
    if state is None:
        return Done(source.updates or 0, 0, source.updates or 0)
    position, length = state.progress["position"], state.progress.get("window", windows.length)
    return Done(state.progress["step"], position * length // windows.length, state.progress.get("begun_at", 0))


def go_on(trainer: Trainer, setup: Setup, state: State | None) -> None:
    """Restore ``state``, if there is one, without writing anything."""
    if state is not None:
        setup.say(f"Loading checkpoint {state.path}")
        _check_base(trainer, state, setup.job)
        restore(trainer, state)
        trainer.position = done_before(setup.source, state, trainer.windows).position
        _say_changes(trainer, setup, state)
        if not is_of(state, trainer.run):
            trainer.forget_best()  # the best model is in the other folder
    else:
        trainer.step = setup.source.updates or 0
    if trainer.settings.minutes:
        trainer.pace.plan(trainer.step, trainer.seconds)
    if trainer.step > trainer.last_step:
        raise UsageError(
            f"{_origin(trainer)} already has {trainer.step} updates, more than the requested {trainer.last_step}: "
            f"give more --steps or --epochs, or --restore_from fresh to start again"
        )


def _origin(trainer: Trainer) -> Path:
    """Return the place of the updates made so far: the run folder, or the state from elsewhere that was restored."""
    state = trainer.last_state
    return trainer.run if state is None or state.resolve().parent == trainer.run.resolve() else state


def _say_changes(trainer: Trainer, setup: Setup, state: State) -> None:
    """Report what has changed since ``state`` was saved.

    Raises :class:`UsageError` if the text has changed and the run is finished.
    """
    job = setup.job
    before, now = state.progress.get("tokens"), len(trainer.windows.ring)
    if before not in (now, None):
        if trainer.step >= trainer.last_step and is_of(state, trainer.run):
            raise UsageError(
                f"{job.run} finished after {trainer.step} updates on a different text of {before} tokens (this one "
                f"has {now}): give another --run_name, or --restore_from fresh, which renames the old run"
            )
        setup.say(f"the dataset had {before} tokens before: training continues on the new text")
    if (contract := state.progress.get("contract", 1)) != CONTRACT:  # 1: of before it was recorded
        setup.say(
            f"the state was saved under version {contract} of gpt2lab's contract, and this is version {CONTRACT}: "
            "losses and samples may differ from those of one uninterrupted run"
        )
    changed = _changed(state.progress.get("settings", {}), trainer.settings)
    if (name := state.progress.get("model_name", job.model_name)) not in (job.model_name, None) and not job.config:
        changed.append(f"model_name {name} -> {job.model_name} (no effect: the weights come from the state)")
    if changed:
        setup.say(f"changed since the state was saved: {', '.join(changed)}")


def _changed(then: Mapping[str, Any], settings: Settings) -> list[str]:
    """Return the settings that differ from the state's, except those for the length, which every command sets again."""
    others = [field.name for field in fields(settings) if field.metadata["group"] != "Length"]
    now = {name: getattr(settings, name) for name in others if name in then}
    return [f"{name} {then[name]} -> {value}" for name, value in now.items() if then[name] != value]


def ended(trainer: Trainer) -> str | None:
    """Return why a run has nothing left to do, or None if it has."""
    if trainer.step == trainer.last_step:
        settings = trainer.settings
        more = "--minutes" if settings.minutes else "--steps or --epochs"
        more = {settings.steps: "--steps or --epochs", settings.stop_after: "--stop_after"}.get(trainer.step, more)
        return f"{_origin(trainer)} finished after {trainer.step} updates: to continue, give more {more}"
    if trainer.patience_ended:
        return (
            f"{_origin(trainer)} ended after {trainer.step} updates, the last {trainer.since_best} validations without "
            f"improvement: to continue, give more --patience"
        )
    return None


def base_checksum(setup: Setup, model: GPT2) -> int | None:
    """Return a checksum of the weights that LoRA does not change and a state therefore does not hold."""
    if not setup.settings.lora or not setup.world.is_main:
        return None
    crc = 0
    for parameter in model.parameters():
        if not parameter.requires_grad:
            crc = zlib.crc32(np.ascontiguousarray(parameter.detach().numpy()).view("u1").data, crc)
    return crc


def _check_base(trainer: Trainer, state: State, job: Job) -> None:
    base, config = trainer.about["base"], trainer.model.config
    if base is not None and state.progress.get("base") not in (None, base):
        raise CheckpointError(
            f"{state.path} is an adapter for another model than {job.model_name} with {config.n_layer} layers and a "
            f"context of {config.n_ctx}: give the --model_name, --n_layer and --n_ctx that the run started with, or "
            f"--restore_from fresh to start again"
        )
