"""Checks of the machine before training: is there enough memory and disk, and which arithmetic is the fastest here?

Reports its findings before training begins. This module knows nothing of training, except to measure passes over a few
windows.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from gpt2lab.data.windows import Windows
from gpt2lab.errors import TrainingError
from gpt2lab.system.memory import available_memory
from gpt2lab.training.memory import estimate
from gpt2lab.training.module import GPT2
from gpt2lab.training.ops.compute import Precision
from gpt2lab.training.ops.pool import Pool
from gpt2lab.training.ops.products import native_is_faster
from gpt2lab.training.setup import Setup

PROBE_TOKENS = 512
_NO_MEMORY = re.compile(r"can't allocate memory|out of memory|cannot allocate memory", re.IGNORECASE)
GAIN = 0.9  # bfloat16 is chosen if it takes less than this fraction of float32's time


def say_memory(setup: Setup, remembered: str | None) -> None:
    """Report the memory that training needs; while the precision is undecided, the larger of the two estimates.

    Raises :class:`TrainingError` if not even the weights fit.
    """
    settings, world, say = setup.settings, setup.world, setup.say
    precisions: tuple[Precision, ...] = (
        ("float32", "bfloat16") if settings.precision == "auto" else (settings.precision,)
    )
    precisions = tuple(each for each in precisions if remembered in (each, None)) or precisions
    each = [estimate(setup.source.config, replace(settings, precision=one), world.size) for one in precisions]
    needed = max(each, key=lambda one: one.total)
    say(str(needed))
    if world.device.type != "cpu":
        return
    free = available_memory()
    if needed.weights > free:
        raise TrainingError(
            f"choose a smaller model: the weights alone need {needed.weights / 2**30:,.1f} GiB of memory, "
            f"and only {free / 2**30:.1f} GiB are free"
        )
    if needed.total > free:
        say(
            f"warning: only {free / 2**30:.1f} GiB of memory are free: a smaller --batch_size, "
            f"--memory_saving_gradients or --lora needs less"
        )


@contextmanager
def lack_of_memory_named() -> Iterator[None]:
    """Turn the errors of a failed allocation into a :class:`TrainingError` that says what needs less memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # on a CPU, PyTorch raises a plain RuntimeError
        if not isinstance(error, MemoryError) and not _NO_MEMORY.search(str(error)):
            raise
        raise TrainingError(
            "training ran out of memory: a smaller --batch_size (with --accumulate_gradients), "
            "--memory_saving_gradients or --lora needs less; saved states are intact"
        ) from None


def say_disk(setup: Setup, model: GPT2) -> None:
    """Report the disk space that the run folder needs: the best model, the kept states, and one being written."""
    run, settings, n_params = setup.job.run, setup.settings, model.config.n_params
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    saved = trained if settings.lora else n_params
    kept = {"sgd": 0, "muon": 1}.get(settings.optimizer, 2) + (
        settings.average > 0
    )  # values per trained parameter, roughly
    needed = 4 * (n_params + (settings.keep + 1) * (saved + kept * trained))
    there = next(path for path in run.absolute().parents if path.exists())
    free = shutil.disk_usage(there).free
    hours = settings.keep_checkpoint_every_n_hours
    more = f", and {4e-9 * (saved + kept * trained):.2f} GB more every {hours:g} hours" if hours else ""
    setup.say(f"disk: up to {needed / 1e9:.2f} GB for the model and {settings.keep} states in {run}{more}")
    if needed > free:
        setup.say(f"warning: only {free / 1e9:.2f} GB of disk are free there: a smaller --keep needs less")


def choose_compute(setup: Setup, model: GPT2, windows: Windows, remembered: str | None) -> None:
    """Set how ``model`` computes. ``remembered`` is the precision of the state to resume from, None without one."""
    precision, pool = _precision(setup, model, windows, remembered), None
    if setup.world.device.type == "cpu":
        needed = estimate(model.config, replace(setup.settings, precision=precision), setup.world.size)
        pool = Pool(needed.total)  # not earlier: the measurement's memory would stay in it
    model.compute = replace(model.compute, precision=precision, native=native_is_faster(precision), pool=pool)


def _precision(setup: Setup, model: GPT2, windows: Windows, remembered: str | None) -> Precision:
    """Return the requested precision; for ``auto``, the state's, or else the one that a measurement favours."""
    world = setup.world
    if setup.settings.precision != "auto":
        return setup.settings.precision
    if remembered is not None:
        return "bfloat16" if remembered == "bfloat16" else "float32"
    if world.device.type != "cpu":
        return "bfloat16" if world.device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    chosen: Precision = world.broadcast(_measured(setup, model, windows) if world.is_main else None)
    return chosen


def _measured(setup: Setup, model: GPT2, windows: Windows) -> Precision:
    """Time forward and backward passes over the same tokens in both precisions; report and return the choice."""
    batch = windows.batch(0, max(1, PROBE_TOKENS // windows.length))
    tokens = torch.from_numpy(batch.tokens[:, :PROBE_TOKENS].copy())
    targets = torch.from_numpy(batch.targets[:, :PROBE_TOKENS].copy())

    def seconds(precision: Precision, part: int) -> float:
        model.compute = replace(model.compute, precision=precision, native=native_is_faster(precision))
        begin = time.perf_counter()
        model(tokens[:, :part], targets[:, :part]).backward()
        return time.perf_counter() - begin

    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    first = {precision: seconds(precision, 64) for precision in precisions}  # a warm-up, and a quick first test
    took = first
    if first["bfloat16"] < 3 * first["float32"]:
        rounds = [{precision: seconds(precision, PROBE_TOKENS) for precision in precisions} for _ in range(2)]
        took = {precision: min(each[precision] for each in rounds) for precision in precisions}
    for parameter in model.parameters():
        parameter.grad = None
    chosen: Precision = "bfloat16" if took["bfloat16"] < GAIN * took["float32"] else "float32"
    setup.say(
        f"precision: {chosen} (a pass took {took['float32']:.3f} s in float32, {took['bfloat16']:.3f} s in bfloat16)"
    )
    return chosen
