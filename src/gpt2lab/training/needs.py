"""What a run will need of this machine, said before it begins: memory, and room on the disk.

The arithmetic is in :mod:`gpt2lab.training.memory`; this says it, and warns where there is less.
"""

from __future__ import annotations

import shutil
from dataclasses import replace

from gpt2lab.system.memory import available_memory
from gpt2lab.training.memory import estimate
from gpt2lab.training.module import GPT2
from gpt2lab.training.ops.compute import Precision
from gpt2lab.training.setup import Setup


def say_memory(setup: Setup, remembered: str | None) -> None:
    """What training will take; of a precision that is not chosen yet, what the hungrier one takes."""
    settings, world, say = setup.settings, setup.world, setup.say
    precisions: tuple[Precision, ...] = (
        ("float32", "bfloat16") if settings.precision == "auto" else (settings.precision,)
    )
    precisions = tuple(each for each in precisions if remembered in (each, None)) or precisions
    each = [estimate(setup.source.config, replace(settings, precision=one), world.size) for one in precisions]
    needed = max(each, key=lambda one: one.total)
    say(str(needed))
    if world.device.type == "cpu" and needed.total > (free := available_memory()):
        say(
            f"warning: only {free / 2**30:.1f} GiB are free: a smaller --batch_size, --memory_saving_gradients or "
            f"--lora needs less"
        )


def say_disk(setup: Setup, model: GPT2) -> None:
    """What the run folder will take: the best model, the last states, and one that is being written."""
    run, settings, n_params = setup.job.run, setup.settings, model.config.n_params
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    saved = trained if settings.lora else n_params
    kept = {"sgd": 0, "muon": 1}.get(settings.optimizer, 2)  # numbers for each that is trained, about
    needed = 4 * (n_params + (settings.keep + 1) * (saved + kept * trained))
    there = next(path for path in run.absolute().parents if path.exists())
    free = shutil.disk_usage(there).free
    setup.say(f"disk: up to {needed / 1e9:.2f} GB for the model and {settings.keep} states in {run}")
    if needed > free:
        setup.say(f"warning: only {free / 1e9:.2f} GB are free there: a smaller --keep needs less")
