"""From the user's request to a running trainer.

Lists the steps before the first update in the order in which they happen, and reports the end of the run. This module
knows nothing of flags, nor of what an update does.
"""

from __future__ import annotations

import json
from dataclasses import asdict

import torch

from gpt2lab.errors import CheckpointError, UsageError
from gpt2lab.system.atomic import new_files
from gpt2lab.system.locks import Hold
from gpt2lab.training import checkpoints
from gpt2lab.training.checkpoints import State
from gpt2lab.training.distributed import World
from gpt2lab.training.job import Job
from gpt2lab.training.loop import Trainer
from gpt2lab.training.machine import choose_compute, say_disk, say_memory
from gpt2lab.training.metrics import file_reporters
from gpt2lab.training.module import GPT2
from gpt2lab.training.ops.compute import Compute
from gpt2lab.training.optimizers import choose_trainable
from gpt2lab.training.reporting import Lines, Live, Reporter, Several
from gpt2lab.training.resuming import base_checksum, begin, done_before, ended, go_on, is_of, move_aside, torchrun_job
from gpt2lab.training.samples import Samples
from gpt2lab.training.settings import Settings
from gpt2lab.training.setup import Setup
from gpt2lab.training.text import Text, load_text
from gpt2lab.weights.huggingface import write_vocabulary
from gpt2lab.weights.vocabulary import gpt2_vocabulary


def train(job: Job, settings: Settings, terminal: bool = False) -> int:
    """Run ``job`` and return the exit status: 0, or that of the signal that ended it after the state was saved.

    ``terminal`` asks for a live line in place of the original's lines. Raises the errors in :mod:`gpt2lab.errors`.
    """
    with World.start(_device(job.device)) as world, Hold() as hold:
        if world.is_main:
            hold.take(job.run)
        setup, state = begin(job, settings, world)
        text = load_text(setup)
        setup = setup.resolved(len(text.windows), done_before(state, text.windows))
        trainer = _trainer(setup, text, state)
        goes_on, newer = is_of(state, job.run), state is None or setup.job.restore_from != "latest"
        del state  # else its files stay open, and in memory, to the end
        if reason := ended(trainer):
            setup.say(reason)
            _say_end(setup, trainer, "ended before")
            return 0
        if world.is_main:  # every check has passed: from here on the run folder changes
            if not goes_on:
                move_aside(job)
            _prepare_run(setup)
            hold.take(job.run)
            if newer:
                trainer.generation = checkpoints.next_generation(job.run)
        with _reporter(setup, trainer, terminal) as reporter:
            trainer.reporter = reporter
            reporter.say("Training...")
            reason = trainer.train()
        _say_end(setup, trainer, reason)
        return 128 + trainer.interrupted if trainer.interrupted else 0


def _trainer(setup: Setup, text: Text, state: State | None) -> Trainer:
    """Return a trainer whose model has its weights and its way to compute, resumed from ``state`` if there is one."""
    settings, world, source = setup.settings, setup.world, setup.source
    model = _build(setup, with_weights=state is None or settings.lora > 0)
    if settings.patience and (text.held_out is None or not settings.val_every):
        setup.say(f"--patience {settings.patience} has no effect without validation")
    remembered = state.progress.get("precision") if state else None
    say_memory(setup, remembered)
    say_disk(setup, model)
    choose_compute(setup, model, text.windows, remembered)
    about = {
        "precision": model.compute.precision,
        "tokens": len(text.windows.ring),
        "window": text.windows.length,
        "base": base_checksum(setup, model),
        "model_name": setup.job.model_name if source.checkpoint else None,
        "torchrun": torchrun_job(),
    }
    plain = Lines() if world.is_main else Reporter()
    trainer = Trainer(model, settings, *text, setup.job.run, world, plain, vocabulary=source.vocabulary, about=about)
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
        job.run.mkdir(parents=True, exist_ok=True)
        vocabulary = setup.source.vocabulary or gpt2_vocabulary()
        with new_files(job.run, sync=False) as folder:
            text = json.dumps({**asdict(job), **asdict(setup.settings)}, indent=2) + "\n"
            (folder / "settings.json").write_text(text, encoding="utf-8")
            write_vocabulary(folder, vocabulary, setup.source.config.n_ctx)
    except OSError as error:
        raise CheckpointError(f"cannot write into {job.run}: {error.strerror or error}") from None


def _reporter(setup: Setup, trainer: Trainer, terminal: bool) -> Reporter:
    if not setup.world.is_main:
        return Reporter()
    files = file_reporters(trainer.run, trainer.step)
    return Several(Live(trainer.last_step) if terminal else Lines(), *files)


def _say_end(setup: Setup, trainer: Trainer, reason: str) -> None:
    run, say = trainer.run, setup.say
    if reason == "no better":
        say(f"stopped: the last {trainer.since_best} validations brought no improvement")
    if trainer.since_best and trainer.best_step == 0:
        say(f"no validation was better than before training: {run} holds the model from before training")
    if reason == "interrupted":
        say("run the same command again to resume")
        if trainer.validated is not None and trainer.best_step < trainer.step and not trainer.settings.lora:
            say(
                f"{run} holds the model of update {trainer.best_step}, the best on held-out text so far; "
                f"{trainer.last_state} holds that of update {trainer.step}"
            )
            say(f"to generate with the newest:  gpt2lab generate --model {trainer.last_state}")
            return
    if (run / "model.safetensors").exists():
        say(f"to generate with it:  gpt2lab generate --model {run}")


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("this PyTorch finds no CUDA device: give --device cpu")
    return name
