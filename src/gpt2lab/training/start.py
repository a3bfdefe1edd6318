"""From what a user asks for to a trainer that runs: the model, the text, the state to go on from.

What comes before the first update, and what is said after the last. Knows nothing of flags, nor of what an update does.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from gpt2lab.data.open import open_documents
from gpt2lab.data.split import hold_out
from gpt2lab.data.windows import Ring, Windows
from gpt2lab.errors import CheckpointError, UsageError
from gpt2lab.system.locks import Hold
from gpt2lab.system.memory import available_memory
from gpt2lab.training import checkpoints
from gpt2lab.training.distributed import World
from gpt2lab.training.job import Job, Source
from gpt2lab.training.loop import Trainer
from gpt2lab.training.memory import estimate
from gpt2lab.training.metrics import file_reporters
from gpt2lab.training.module import GPT2
from gpt2lab.training.ops.compute import Compute, Precision
from gpt2lab.training.ops.pool import Pool
from gpt2lab.training.ops.products import native_is_faster
from gpt2lab.training.optimizers import choose_trainable
from gpt2lab.training.reporting import Lines, Live, Reporter, Several
from gpt2lab.training.resuming import (
    after_restart,
    base_checksum,
    begin_with,
    ended,
    go_on,
    is_of,
    move_aside,
    torchrun_job,
)
from gpt2lab.training.samples import Samples
from gpt2lab.training.settings import Settings, resolved
from gpt2lab.weights.huggingface import write_vocabulary
from gpt2lab.weights.vocabulary import gpt2_vocabulary

Say = Callable[[str], None]

LEAST_HELD_OUT = 128  # tokens; the loss of fewer says nothing
PROBE_TOKENS = 512
GAIN = 0.9  # bfloat16 must take less than this part of float32's time to be chosen


def train(job: Job, settings: Settings, terminal: bool = False) -> int:
    """Do ``job``; the exit status: 0, or that of the signal that ended it after the state was saved.

    ``terminal`` asks for a live line in place of the original's lines. Raises what is in :mod:`gpt2lab.errors`.
    """
    with World.start(_device(job.device)) as world, Hold() as hold:
        if world.is_main:
            hold.take(job.run)
        say: Say = print_line if world.is_main else lambda _: None
        job = after_restart(job, world)
        source, state = begin_with(job, world, say)
        windows, held_out = load_windows(job, settings, source, say)
        settings = resolved(settings, source.config, len(windows), from_scratch=source.checkpoint is None)
        _check_narrow(settings)
        model = build(source, settings, world, with_weights=state is None or settings.lora > 0)
        if settings.patience and (held_out is None or not settings.val_every):
            say(f"--patience {settings.patience} does nothing: there is no validation to become no better")
        remembered = state.progress.get("precision") if state else None
        _say_memory(model, settings, world, remembered, say)
        _say_disk(job, model, settings, say)
        model.compute = replace(model.compute, native=native_is_faster())
        precision = choose_precision(model, settings, windows, world, remembered, say)
        model.compute = replace(model.compute, precision=precision)
        if world.device.type == "cpu":
            needed = estimate(model.config, replace(settings, precision=precision), world.size)
            pool = Pool(needed.total)  # not before: the measurement's memory would stay in it
            model.compute = replace(model.compute, pool=pool)
        trainer = _trainer(job, settings, source, model, windows, held_out, world)
        go_on(trainer, job, state, say)
        goes_on, newer = is_of(state, job), state is None or job.restore_from != "latest"
        del state  # or its files stay open, and in memory, to the end
        if reason := ended(trainer, job):
            say(reason)
            _say_end(trainer, job, "ended before", say)
            return 0
        if world.is_main:  # all that can be refused was: from here on the run folder changes
            if not goes_on:
                move_aside(job, say)
            _prepare_run(job, settings, source)
            hold.take(job.run)
            if newer:
                trainer.generation = checkpoints.next_generation(job.run)
        with _reporter(job, settings, trainer.step, world, terminal) as reporter:
            trainer.reporter = reporter
            reporter.say("Training...")
            reason = trainer.train()
        _say_end(trainer, job, reason, say)
        return 128 + trainer.interrupted if trainer.interrupted else 0


def _trainer(
    job: Job,
    settings: Settings,
    source: Source,
    model: GPT2,
    windows: Windows,
    held_out: Windows | None,
    world: World,
) -> Trainer:
    about = {
        "precision": model.compute.precision,
        "tokens": len(windows.ring),
        "base": base_checksum(model, settings, world),
        "model_name": job.model_name if source.checkpoint else None,
        "torchrun": torchrun_job(),
    }
    vocabulary = source.checkpoint.tokenizer_files if source.checkpoint else None
    plain = Lines() if world.is_main else Reporter()
    trainer = Trainer(model, settings, windows, held_out, job.run, world, plain, vocabulary=vocabulary, about=about)
    trainer.sampler = _sampler(job, settings, source, lambda line: trainer.reporter.say(line))
    return trainer


def print_line(line: str) -> None:
    """On standard output, at once."""
    print(line, flush=True)


def load_windows(job: Job, settings: Settings, source: Source, say: Say) -> tuple[Windows, Windows | None]:
    """Read and split the dataset; says how large the parts are. None if there is nothing to validate with."""
    say("Loading dataset...")
    block_size = settings.block_size or source.config.n_ctx
    separator = source.tokenizer.end_of_text

    def read(paths: tuple[str, ...]) -> Any:
        return open_documents(
            paths, source.tokenizer, field=job.field, column=job.column, encoding=job.encoding, say=say
        )

    documents = read(job.dataset)

    def split(fraction: float) -> tuple[Ring, Ring | None]:
        return hold_out(documents, fraction, settings.seed, separator=separator, combine=job.combine)

    if job.val_dataset is not None:
        ring, aside = split(0.0)
        aside = Ring(read((job.val_dataset,)), separator=separator)
        if _is_within(job.val_dataset, job.dataset):
            say(f"{job.val_dataset} is trained on as well: its loss will say how much was learned by heart")
    else:
        ring, aside = split(job.held_out)
        if job.held_out and (aside is None or len(aside) < LEAST_HELD_OUT):
            say(f"{len(documents.tokens)} tokens are too few to hold some out: there will be no validation")
            ring, aside = split(0.0)[0], None
    train = Windows(ring, block_size, settings.seed, settings.sampling)
    say(f"dataset has {len(ring)} tokens, documents: {ring.n_documents}")
    if train.length < block_size:
        say(f"that is less than a window of {block_size}: windows have {train.length} tokens")
    if aside is None:
        return train, None
    say(f"held out: {len(aside)} tokens, documents: {aside.n_documents}")
    validation = Windows(aside, block_size, settings.seed)
    if validation.length < block_size:
        say(f"that is less than a window of {block_size}: windows of validation have {validation.length} tokens")
    return train, validation


def _is_within(path: str, others: tuple[str, ...]) -> bool:
    """Whether a file or folder is one of ``others``, or in one of them."""
    place = Path(path).resolve()
    return bool({place, *place.parents} & {Path(other).resolve() for other in others})


def build(source: Source, settings: Settings, world: World, *, with_weights: bool) -> GPT2:
    """The model: random, or with the source's weights unless a state will bring all of them."""
    torch.manual_seed(settings.seed)
    random = source.checkpoint is None and with_weights
    with world.building() if random else torch.device("meta"):
        compute = Compute(recompute="layers" if settings.memory_saving_gradients else "cheap")
        model = GPT2(source.config, settings.dropout, compute)
    if not random and world.is_main:
        model.to_empty(device="cpu")
    if source.checkpoint is not None and with_weights and world.is_main:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.tensor(source.checkpoint.tensors[name]))
    choose_trainable(model, settings)
    return model


def choose_precision(
    model: GPT2, settings: Settings, windows: Windows, world: World, remembered: str | None, say: Say
) -> Precision:
    """The precision asked for; for ``auto`` what the state remembers, else what a measurement here says."""
    if settings.precision != "auto":
        return settings.precision
    if remembered is not None:
        return "bfloat16" if remembered == "bfloat16" else "float32"
    if world.device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    chosen: Precision = world.broadcast(_measure(model, windows, say) if world.is_main else None)
    return chosen


def _measure(model: GPT2, windows: Windows, say: Say) -> Precision:
    """Forward and backward passes over the same tokens in both precisions; says what they took."""
    batch = windows.batch(0, max(1, PROBE_TOKENS // windows.length))
    tokens = torch.from_numpy(batch.tokens[:, :PROBE_TOKENS].copy())
    targets = torch.from_numpy(batch.targets[:, :PROBE_TOKENS].copy())

    def seconds(precision: Precision, part: int) -> float:
        model.compute = replace(model.compute, precision=precision)
        begin = time.perf_counter()
        model(tokens[:, :part], targets[:, :part]).backward()
        return time.perf_counter() - begin

    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    first = {precision: seconds(precision, 64) for precision in precisions}  # warms up, and spares the hopeless
    took = first
    if first["bfloat16"] < 3 * first["float32"]:
        rounds = [{precision: seconds(precision, PROBE_TOKENS) for precision in precisions} for _ in range(2)]
        took = {precision: min(each[precision] for each in rounds) for precision in precisions}
    for parameter in model.parameters():
        parameter.grad = None
    chosen: Precision = "bfloat16" if took["bfloat16"] < GAIN * took["float32"] else "float32"
    say(f"precision: {chosen} (a pass took {took['float32']:.3f} s in float32, {took['bfloat16']:.3f} s in bfloat16)")
    return chosen


def _check_narrow(settings: Settings) -> None:
    """Raise :class:`UsageError` where what ``narrow_steps`` does to the embedding would be in no state, or undone."""
    other = "lora" if settings.lora else "only_train_transformer_layers"
    if settings.narrow_steps and getattr(settings, other):
        raise UsageError(f"--narrow_steps trains the embedding, which --{other} leaves as it is: give one of them")
    if settings.narrow_steps >= (settings.steps or 0) > 0:
        raise UsageError(
            f"--narrow_steps must be below the {settings.steps} updates in all, got {settings.narrow_steps}"
        )


def _prepare_run(job: Job, settings: Settings, source: Source) -> None:
    """Make the run folder, with the settings and the vocabulary in it. Raises :class:`CheckpointError` if it cannot."""
    try:
        job.run.mkdir(parents=True, exist_ok=True)
        vocabulary = (source.checkpoint.tokenizer_files if source.checkpoint else None) or gpt2_vocabulary()

        def write(folder: Path) -> None:
            text = json.dumps({**asdict(job), **asdict(settings)}, indent=2) + "\n"
            (folder / "settings.json").write_text(text, encoding="utf-8")
            write_vocabulary(folder, vocabulary, source.config.n_ctx)

        checkpoints.write_whole(job.run, write)
    except OSError as error:
        raise CheckpointError(f"cannot write into {job.run}: {error.strerror or error}") from None


def _reporter(job: Job, settings: Settings, step: int, world: World, terminal: bool) -> Reporter:
    if not world.is_main:
        return Reporter()
    steps = min(filter(None, (settings.steps, settings.stop_after)))
    files = file_reporters(job.run, step)
    return Several(Live(steps) if terminal else Lines(), *files)


def _say_memory(model: GPT2, settings: Settings, world: World, remembered: str | None, say: Say) -> None:
    """What training will take; of a precision that is not chosen yet, what the hungrier one takes."""
    precisions: tuple[Precision, ...] = (
        ("float32", "bfloat16") if settings.precision == "auto" else (settings.precision,)
    )
    precisions = tuple(each for each in precisions if remembered in (each, None)) or precisions
    each = [estimate(model.config, replace(settings, precision=precision), world.size) for precision in precisions]
    needed = max(each, key=lambda one: one.total)
    say(str(needed))
    if world.device.type == "cpu" and needed.total > (free := available_memory()):
        say(
            f"warning: only {free / 2**30:.1f} GiB are free: a smaller --batch_size, --memory_saving_gradients or "
            f"--lora needs less"
        )


def _say_disk(job: Job, model: GPT2, settings: Settings, say: Say) -> None:
    """What the run folder will take: the best model, the last states, and one that is being written."""
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    saved = trained if settings.lora else model.config.n_params
    kept = {"sgd": 0, "muon": 1}.get(settings.optimizer, 2)  # numbers for each that is trained, about
    needed = 4 * (model.config.n_params + (settings.keep + 1) * (saved + kept * trained))
    there = next(path for path in job.run.absolute().parents if path.exists())
    free = shutil.disk_usage(there).free
    say(f"disk: up to {needed / 1e9:.2f} GB for the model and {settings.keep} states in {job.run}")
    if needed > free:
        say(f"warning: only {free / 1e9:.2f} GB are free there: a smaller --keep needs less")


def _say_end(trainer: Trainer, job: Job, reason: str, say: Say) -> None:
    if reason == "no better":
        say(f"no better for {trainer.since_best} validations")
    if trainer.since_best and trainer.best_step == 0:
        say(f"no validation was better than before training: {job.run} holds the model as it was then")
    if reason == "interrupted":
        say("the same command goes on from there")
        if trainer.validated is not None and trainer.best_step < trainer.step and not trainer.settings.lora:
            say(
                f"{job.run} holds the model of update {trainer.best_step}, the best on held-out text so far; "
                f"{trainer.last_state} that of update {trainer.step}"
            )
            say(f"to write with the newest:  gpt2lab generate --model {trainer.last_state}")
            return
    if (job.run / "model.safetensors").exists():
        say(f"to write with it:  gpt2lab generate --model {job.run}")


def _sampler(job: Job, settings: Settings, source: Source, say: Say) -> Samples | None:
    if not settings.sample_every:
        return None
    folder = Path(job.sample_dir, job.run_name)
    return Samples(source.config, source.tokenizer, settings, folder, say)


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("there is no CUDA device that this PyTorch can use: --device cpu")
    return name
