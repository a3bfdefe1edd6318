"""From the request to a running trainer: :class:`Session`.

Lists the steps before the first update in the order in which they happen, and reports the end of the run. This module
knows nothing of flags, nor of what an update does.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import asdict

import torch

from gpt2lab.engines.lazy import Engines
from gpt2lab.errors import CheckpointError
from gpt2lab.model import LanguageModel, load
from gpt2lab.system.atomic import new_files
from gpt2lab.system.locks import Hold
from gpt2lab.system.marks import write_mark
from gpt2lab.training import advice, checkpoints
from gpt2lab.training.card import Card, Facts, text_rows
from gpt2lab.training.checkpoints import State
from gpt2lab.training.distributed import World
from gpt2lab.training.ending import reason_of, recorded_end
from gpt2lab.training.job import Job
from gpt2lab.training.loop import Trainer
from gpt2lab.training.machine import choose_compute, lack_of_memory_named, say_disk, say_memory
from gpt2lab.training.metrics import file_reporters
from gpt2lab.training.module import GPT2
from gpt2lab.training.ops.compute import Compute
from gpt2lab.training.optimizers import choose_trainable
from gpt2lab.training.reporting import Dispensable, Reporter, Several, Update
from gpt2lab.training.resuming import base_checksum, begin, done_before, ended, go_on, torchrun_job
from gpt2lab.training.run_folder import RUN_FILES, claim, is_of, move_aside
from gpt2lab.training.samples import Samples, in_memory
from gpt2lab.training.settings import Settings
from gpt2lab.training.setup import Setup
from gpt2lab.training.text import Text, load_text
from gpt2lab.version import CONTRACT


class Session:
    """A training run, prepared up to its first update; the command and :func:`gpt2lab.finetune` both drive one.

    The run folder is locked until the session ends, is closed or is garbage-collected. ``reporter`` shows the progress.
    Raises the errors in :mod:`gpt2lab.errors`.
    """

    @lack_of_memory_named()
    def __init__(self, job: Job, settings: Settings, reporter: Reporter) -> None:
        with ExitStack() as opened:
            world, hold = opened.enter_context(World.start(job.device)), opened.enter_context(Hold())
            if world.is_main:
                claim(job.run, hold)
            setup, state = begin(job, settings, world, reporter.say)
            text = load_text(setup)
            done = done_before(setup.source, state, text.windows)
            self.setup = setup.resolved(len(text.windows), done)
            setup.say(advice.length(self.setup.settings, settings, len(text.windows), done))
            self.trainer = _trainer(self.setup, text, state, reporter if world.is_main else Reporter())
            self.setup = self.setup.released()
            self._goes_on = is_of(state, job.run) or (state is None and setup.source.updates is not None)
            self._newer = state is None or setup.job.restore_from != "latest"
            self._hold, self._opened = hold, opened.pop_all()
        self.close = weakref.finalize(self, self._opened.close)
        """Release the run folder; updates that are not saved are lost."""

    def finish(self) -> int:
        """Train to the end, or until a signal; return the exit status: 0, or that of the signal."""
        with self.trainer.interrupts:
            for _ in self.updates():
                pass
        return 128 + self.trainer.interrupted if self.trainer.interrupted else 0

    def updates(self) -> Generator[Update]:
        """Yield the updates up to the end of the run, as :meth:`Trainer.updates` does; can be called once."""
        setup, trainer = self.setup, self.trainer
        with self._opened:
            if trainer.stopping:
                return
            if reason := ended(trainer):
                setup.say(reason)
                trainer.outcome = "ended before"
            else:
                self._prepare()
                with recorded_end(trainer), lack_of_memory_named(), _reporter(setup, trainer) as trainer.reporter:
                    trainer.reporter.say("Training...")
                    yield from trainer.updates()
            _say_end(setup, trainer)

    def model(self) -> LanguageModel:
        """Return the best model so far, which the run folder holds; without validation, a copy of the newest."""
        trainer, source = self.trainer, self.setup.source
        saved = trainer.run / "model.safetensors"
        if trainer.validated is not None and trainer.best_step != trainer.step and saved.exists():
            return load(trainer.run)
        tensors = {name: tensor.detach().clone() for name, tensor in trainer.tensors().items()}
        return LanguageModel(Engines(in_memory(source.config, tensors)), source.tokenizer)

    def _prepare(self) -> None:
        """Make the run folder ready: every check has passed, and from here on it changes."""
        setup, job = self.setup, self.setup.job
        if not setup.world.is_main:
            return
        folders = [job.run, job.samples] if setup.settings.sample_every else [job.run]
        for folder in folders:
            claim(folder, self._hold)
        if not self._goes_on:
            move_aside(job, setup.say)
            for folder in folders:  # new ones under the same names
                claim(folder, self._hold)
        _prepare_run(setup)
        if self._newer:
            self.trainer.generation = checkpoints.next_generation(job.run)


def _trainer(setup: Setup, text: Text, state: State | None, reporter: Reporter) -> Trainer:
    """Return a trainer whose model has its weights and its way to compute, resumed from ``state`` if there is one."""
    settings, world, source = setup.settings, setup.world, setup.source
    remembered = state.progress.get("precision") if state else None
    say_memory(setup, remembered)
    model = _build(setup, with_weights=state is None or settings.lora > 0)
    if settings.patience and (text.held_out is None or not settings.val_every):
        setup.say(f"--patience {settings.patience} has no effect without validation")
    say_disk(setup, model)
    choose_compute(setup, model, text.windows, remembered)
    about = {
        "contract": CONTRACT,
        "precision": model.compute.precision,
        "tokens": len(text.windows.ring),
        "window": text.windows.length,
        "base": base_checksum(setup, model),
        "model_name": setup.job.model_name if source.checkpoint else None,
        "torchrun": torchrun_job(),
        "begun_at": done_before(source, state, text.windows).begun_at,
    }
    trainer = Trainer(model, settings, *text, setup.job.run, world, reporter, vocabulary=source.vocabulary, about=about)
    if settings.sample_every:
        trainer.sampler = Samples(setup, lambda line: trainer.reporter.say(line))
    go_on(trainer, setup, state)
    return trainer


def _build(setup: Setup, *, with_weights: bool) -> GPT2:
    """Build the model: random, or with the source's weights, unless a state will supply all of them."""
    settings, world, checkpoint = setup.settings, setup.world, setup.source.checkpoint
    torch.manual_seed(settings.seed)
    random = checkpoint is None and with_weights
    with world.building() if random else torch.device("meta"):
        compute = Compute(recompute="layers" if settings.memory_saving_gradients else "cheap")
        model = GPT2(setup.source.config, settings.dropout, compute)
    if not random and world.is_main:
        model.to_empty(device="cpu")
    if checkpoint is not None and with_weights and world.is_main:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.tensor(checkpoint.tensors[name]))
    choose_trainable(model, settings)
    return model


def _prepare_run(setup: Setup) -> None:
    """Make the run folder, with the settings and the vocabulary. Raises :class:`CheckpointError` on failure."""
    job = setup.job
    try:
        with new_files(job.run, sync=False) as folder:
            text = json.dumps({**job.described(), **asdict(setup.settings)}, indent=2) + "\n"
            (folder / "settings.json").write_text(text, encoding="utf-8", newline="\n")
            write_mark(folder, RUN_FILES)
            setup.source.vocabulary.write(folder)
    except OSError as error:
        raise CheckpointError(f"cannot write into {job.run}: {error.strerror or error}") from None


def _reporter(setup: Setup, trainer: Trainer) -> Reporter:
    """Return the trainer's reporter, together with those that write files in the main process."""
    if not setup.world.is_main:
        return trainer.reporter
    held_out = trainer.held_out.ring if trainer.held_out else None
    texts = text_rows(setup.job, trainer.windows.ring, held_out)
    facts = Facts(setup.job, setup.settings, trainer.model.config.n_params, texts)
    card = Dispensable("a model card", lambda: Card(facts, lambda: trainer.standing, setup.say), setup.say)
    return Several(trainer.reporter, *file_reporters(trainer.run, trainer.step, setup.say), card)


def _say_end(setup: Setup, trainer: Trainer) -> None:
    run, say, reason = trainer.run, setup.say, trainer.outcome
    if reason == "no better":
        say(f"stopped: {reason_of(trainer)}")
    if reason == "interrupted":
        say("run the same command again to resume")
        if trainer.validated is not None and trainer.best_step < trainer.step and not trainer.settings.lora:
            say(
                f"{run} holds the model of update {trainer.best_step}, the best on held-out text so far; "
                f"{trainer.last_state} holds that of update {trainer.step}"
            )
            say(f"to generate with the newest:  gpt2lab generate --model {trainer.last_state}")
            return
    elif reason != "ended before":
        for line in advice.ending(trainer.standing):
            say(line)
    if (run / "model.safetensors").exists():
        say(f"to generate with it:  gpt2lab generate --model {run}")
